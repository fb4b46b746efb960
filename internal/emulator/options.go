package emulator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// options are an upload's fields, checked.
type options struct {
	name, folder                string
	unique, private, published  bool
	overwrite                   bool
	overwriteTags               bool
	overwriteCustom             bool
	tags                        []string
	custom                      map[string]any
	coords, description, checks string
	responseFields, extensions  []string
	pre                         string // transformation.pre
	video                       bool
}

// queued: a video with a pre-transformation is answered before it is a file.
func (o *options) queued() bool { return o.video && o.pre != "" }

// upload is what both versions do once the caller is known.
func (e *Emulator) upload(ctx context.Context, f *form) answer {
	c, a, refused := e.readContent(ctx, f)
	if refused {
		return a
	}
	o, a, refused := e.readOptions(f)
	if refused {
		return a
	}
	o.video = strings.HasPrefix(c.mime, "video/")
	if o.pre != "" && !o.video && !strings.HasPrefix(c.mime, "image/") {
		return refuse(http.StatusBadRequest, sayNoTransform)
	}
	if a, refused := e.runChecks(o, c); refused {
		return a
	}
	blob, err := e.blobs.store(c.bytes)
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	c.blob = blob
	return e.place(f, o, c)
}

// problem collects the first thing wrong with a form.
type problem struct {
	f   *form
	say string
}

func (p *problem) is(say string) {
	if p.say == "" {
		p.say = say
	}
}

func (p *problem) flag(name string, zero bool) bool {
	text, sent := p.f.fields[name]
	if !sent {
		return zero
	}
	if text != "true" && text != "false" {
		p.is("Your request contains invalid " + name + " parameter. It is true or false.")
	}
	return text == "true"
}

func (p *problem) words(name string) []string {
	text := strings.TrimSpace(p.f.fields[name])
	var list []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
		return slices.Clip(list)
	}
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	return list
}

// object reads a field that is a JSON object.
func (p *problem) object(name, say string, into any) {
	if text := p.f.fields[name]; text != "" && json.Unmarshal([]byte(text), into) != nil {
		p.is(say)
	}
}

var responseFields = []string{"tags", "customCoordinates", "isPrivateFile", "embeddedMetadata", "isPublished", "customMetadata", "metadata", "selectedFieldsSchema"}

func (e *Emulator) readOptions(f *form) (*options, answer, bool) {
	p := &problem{f: f}
	o := &options{
		unique: p.flag("useUniqueFileName", true), private: p.flag("isPrivateFile", false),
		published: p.flag("isPublished", true), overwrite: p.flag("overwriteFile", true),
		overwriteTags: p.flag("overwriteTags", true), overwriteCustom: p.flag("overwriteCustomMetadata", true),
		tags: p.words("tags"), coords: f.fields["customCoordinates"], description: f.fields["description"],
		checks: f.fields["checks"], responseFields: p.words("responseFields"),
	}
	p.flag("overwriteAITags", true)
	if o.name = cleanName(f.fields["fileName"]); o.name == "" {
		p.is("Your request is missing fileName parameter.")
	}
	var err error
	if o.folder, err = cleanFolder(f.fields["folder"]); err != nil {
		p.is(err.Error())
	}
	if say := checkTags(o.tags); say != "" {
		p.is(say)
	}
	if o.coords != "" && !validCoords(o.coords) {
		p.is("Your request contains invalid customCoordinates parameter. It is x,y,width,height.")
	}
	for _, name := range o.responseFields {
		if !slices.Contains(responseFields, name) {
			p.is("Your request contains invalid responseFields parameter.")
		}
	}
	p.object("customMetadata", sayInvalidMetadata, &o.custom)
	o.readTransformation(p)
	o.readExtensions(p)
	if p.say != "" {
		return nil, refuse(http.StatusBadRequest, p.say), true
	}
	if wrong := e.checkMetadata(o.custom); wrong != nil {
		return nil, refuseMetadata(wrong), true
	}
	return o, answer{}, false
}

func (o *options) readTransformation(p *problem) {
	var t struct {
		Pre  string `json:"pre"`
		Post []struct {
			Type string `json:"type"`
		} `json:"post"`
	}
	p.object("transformation", sayBadTransform, &t)
	for _, post := range t.Post {
		if !slices.Contains([]string{"transformation", "gif-to-video", "thumbnail", "abs"}, post.Type) {
			p.is(sayBadTransform)
		}
	}
	o.pre = t.Pre
}

func (o *options) readExtensions(p *problem) {
	var list []struct {
		Name string `json:"name"`
	}
	p.object("extensions", "Your request contains invalid extensions parameter.", &list)
	for _, ext := range list {
		o.extensions = append(o.extensions, ext.Name)
	}
}

func checkTags(tags []string) string {
	joined := strings.Join(tags, ",")
	switch {
	case len([]rune(joined)) > 500:
		return "Your request contains invalid tags parameter. All tags together cannot be longer than 500 characters."
	case strings.Contains(joined, "%"):
		return "Your request contains invalid tags parameter. A tag cannot contain %."
	}
	return ""
}

func validCoords(s string) bool {
	parts := strings.Split(s, ",")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return false
		}
	}
	return len(parts) == 4
}

// cleanName keeps letters, digits, dot, dash and underscore; the rest becomes _.
func cleanName(s string) string {
	s = strings.Map(keepInName, s)
	if s == "." || s == ".." {
		return strings.Repeat("_", len(s))
	}
	return s
}

func keepInName(c rune) rune {
	if unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c) || c == '.' || c == '-' || c == '_' {
		return c
	}
	return '_'
}

// cleanFolder is "/" or "/a/b", at most 50 deep.
func cleanFolder(s string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(s, "/") {
		if part != "" {
			parts = append(parts, cleanName(part))
		}
	}
	if len(parts) > 50 {
		return "", saying("Your request contains invalid folder parameter. Folders cannot be nested more than 50 levels.")
	}
	return "/" + strings.Join(parts, "/"), nil
}

// uniqueName puts _ and nine characters of chance before the extension.
func uniqueName(name string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var b [9]byte
	_, _ = rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[b[i]%64]
	}
	ext := path.Ext(name)
	return strings.TrimSuffix(name, ext) + "_" + string(b[:]) + ext
}

// makeFolders are the folders that are missing above and at a path.
func (e *Emulator) makeFolders(path string, at int64) (changes []change) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' || path == "/" {
			continue
		}
		if sub := path[:i]; e.lib.folders[sub] == nil {
			changes = append(changes, change{Folder: &folder{ID: newID(e.Now()), Path: sub, Created: at, Updated: at}})
		}
	}
	return changes
}

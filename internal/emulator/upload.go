package emulator

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// bodyMax is the largest request body an upload may have; settings bound the file
// itself more tightly.
const bodyMax = 101 << 20

// form is one upload request, read.
type form struct {
	fields map[string]string
	// several is a field that came more than once, which no SDK does.
	several string
	file    *multipart.FileHeader // when file came as bytes
	now     time.Time
}

func (f *form) has(name string) bool { _, ok := f.fields[name]; return ok }

func readForm(r *http.Request, now time.Time) (*form, func(), error) {
	r.Body = http.MaxBytesReader(nil, r.Body, bodyMax)
	if err := r.ParseMultipartForm(8 << 20); err != nil {
		return nil, func() {}, err
	}
	f := &form{fields: map[string]string{}, now: now}
	for k, v := range r.MultipartForm.Value {
		f.fields[k] = v[0]
		if len(v) > 1 {
			f.several = k
		}
	}
	if files := r.MultipartForm.File["file"]; len(files) > 0 {
		f.file = files[0]
	}
	return f, func() { _ = r.MultipartForm.RemoveAll() }, nil
}

func refuseForm(err error) answer {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return refuse(http.StatusBadRequest, sayTooLarge)
	}
	return refuse(http.StatusBadRequest, sayNoUploadFile)
}

// uploadV1 is POST /api/v1/files/upload: by private key, or by a signature that
// binds nothing but a token and a time.
func (e *Emulator) uploadV1(r *http.Request) answer {
	f, done, err := readForm(r, e.Now())
	defer done()
	if err != nil {
		return refuseForm(err)
	}
	if a, refused := e.authorizeV1(r, f); refused {
		return a
	}
	return e.upload(r.Context(), f)
}

func (e *Emulator) authorizeV1(r *http.Request, f *form) (answer, bool) {
	_, basic := basicKey(r)
	switch {
	case basic && f.has("signature"):
		return refuse(http.StatusBadRequest, sayBothSignature), true
	case basic || !f.has("signature"):
		return e.checkKey(r)
	case f.fields["publicKey"] != e.PublicKey:
		return refuse(http.StatusForbidden, sayUnknownKey), true
	}
	expire, err := strconv.ParseInt(f.fields["expire"], 10, 64)
	if now := f.now.Unix(); err != nil || expire <= now || expire >= now+3600 {
		return refuse(http.StatusBadRequest, sayExpire), true
	}
	token := f.fields["token"]
	if token == "" || !hmac.Equal([]byte(SignUpload(e.PrivateKey, token, expire)), []byte(f.fields["signature"])) {
		return refuse(http.StatusBadRequest, sayBadSignature), true
	}
	return e.spend("1:"+token, expire, sayUsedToken)
}

// SignUpload is the V1 signature of a token and its expiry.
func SignUpload(privateKey, token string, expire int64) string {
	mac := hmac.New(sha1.New, []byte(privateKey))
	mac.Write([]byte(token + strconv.FormatInt(expire, 10)))
	return hex.EncodeToString(mac.Sum(nil))
}

// spend marks a one-time token as used, whatever becomes of the request.
func (e *Emulator) spend(key string, until int64, sayUsed string) (answer, bool) {
	a := e.change(func() ([]change, answer) {
		if _, used := e.lib.tokens[key]; used {
			return nil, refuse(http.StatusBadRequest, sayUsed)
		}
		return []change{{Token: &usedToken{Key: key, Until: until}}}, answer{}
	})
	return a, a.status != 0
}

// place puts an upload into the library: a new file, or a new version of the one
// that stands at its path.
func (e *Emulator) place(f *form, o *options, c *content) answer {
	return e.change(func() ([]change, answer) {
		name := o.name
		if o.unique {
			for name = uniqueName(o.name); e.lib.at(join(o.folder, name)) != nil; {
				name = uniqueName(o.name)
			}
		}
		now := f.now.UnixMilli()
		v := version{
			Number: 1, Uploaded: now, Updated: now, Blob: c.blob, Size: int64(len(c.bytes)), MIME: c.mime,
			Width: c.width, Height: c.height, Alpha: c.alpha, Tags: o.tags, Custom: o.custom,
			Coords: o.coords, Text: o.description, Private: o.private, Draft: !o.published,
		}
		changes := e.makeFolders(o.folder, now)
		old := e.lib.at(join(o.folder, name))
		if old == nil {
			v.ID = newID(f.now)
			r := &record{ID: v.ID, Folder: o.folder, Name: name, Created: now, version: v}
			changes = append(changes, change{Put: r})
			return append(changes, e.announceCreated(r, o)...), e.uploaded(r, o)
		}
		if a, refused := mayOverwrite(old, o); refused {
			return nil, a
		}
		v.ID = newID(f.now)
		r := old.overwritten(v, o)
		changes = append(changes, change{Put: r})
		return append(changes, e.announceVersion(r)...), e.uploaded(r, o)
	})
}

const maxVersions = 100

func mayOverwrite(old *record, o *options) (answer, bool) {
	switch {
	case !o.overwrite:
		return refuse(http.StatusBadRequest, sayNameTaken), true
	case len(old.Earlier)+1 >= maxVersions:
		return refuseBecause(http.StatusBadRequest, "VERSION_LIMIT_EXCEEDED", "A file cannot have more than 100 versions."), true
	}
	return answer{}, false
}

// overwritten is the file with v on top: same fileId, same createdAt.
func (r *record) overwritten(v version, o *options) *record {
	v.Number = r.highest() + 1
	v.Updated = max(v.Updated, r.Updated+1)
	if !o.overwriteTags && o.tags == nil {
		v.Tags = r.Tags
	}
	if !o.overwriteCustom && o.custom == nil {
		v.Custom = r.Custom
	}
	next := *r
	next.Earlier = append(slices.Clone(r.Earlier), r.version)
	next.version = v
	return &next
}

// uploadView is what an upload answers: a File without type, mime and times.
type uploadView struct {
	FileID            string            `json:"fileId"`
	Name              string            `json:"name"`
	Size              int64             `json:"size"`
	VersionInfo       versionInfo       `json:"versionInfo"`
	FilePath          string            `json:"filePath"`
	URL               string            `json:"url"`
	FileType          string            `json:"fileType"`
	Height            int               `json:"height,omitempty"`
	Width             int               `json:"width,omitempty"`
	ThumbnailURL      string            `json:"thumbnailUrl"`
	AITags            []string          `json:"AITags"`
	Tags              *[]string         `json:"tags,omitempty"`
	CustomCoordinates **string          `json:"customCoordinates,omitempty"`
	IsPrivateFile     *bool             `json:"isPrivateFile,omitempty"`
	IsPublished       *bool             `json:"isPublished,omitempty"`
	CustomMetadata    *map[string]any   `json:"customMetadata,omitempty"`
	EmbeddedMetadata  *map[string]any   `json:"embeddedMetadata,omitempty"`
	Metadata          map[string]any    `json:"metadata,omitempty"`
	ExtensionStatus   map[string]string `json:"extensionStatus,omitempty"`
	Description       string            `json:"description,omitempty"`
}

func (e *Emulator) uploaded(r *record, o *options) answer {
	if o.queued() {
		return answer{status: http.StatusAccepted, body: map[string]any{"message": sayQueued}}
	}
	return ok(e.uploadView(r, o))
}

func (e *Emulator) uploadView(r *record, o *options) uploadView {
	v := uploadView{
		FileID: r.ID, Name: r.Name, Size: r.Size, VersionInfo: r.info(), FilePath: r.path(),
		URL: e.urlOf(r.path()), ThumbnailURL: e.Endpoint() + "/tr:n-ik_ml_thumbnail" + escapePath(r.path()),
		FileType: r.fileType(), Height: r.Height, Width: r.Width, Description: r.Text,
	}
	for _, name := range o.extensions {
		if v.ExtensionStatus == nil {
			v.ExtensionStatus = map[string]string{}
		}
		v.ExtensionStatus[name] = "pending"
	}
	for _, field := range o.responseFields {
		switch field {
		case "tags":
			v.Tags = &r.Tags
		case "customCoordinates":
			p := orNull(r.Coords)
			v.CustomCoordinates = &p
		case "isPrivateFile":
			v.IsPrivateFile = &r.Private
		case "isPublished":
			shown := !r.Draft
			v.IsPublished = &shown
		case "customMetadata":
			m := orEmpty(r.Custom)
			v.CustomMetadata = &m
		case "embeddedMetadata":
			var none map[string]any
			v.EmbeddedMetadata = &none
		case "metadata":
			v.Metadata = r.metadata()
		}
	}
	return v
}

// metadata is what GET …/metadata and responseFields=metadata say.
func (v *version) metadata() map[string]any {
	m := map[string]any{"size": v.Size}
	if v.Width > 0 {
		m["width"], m["height"] = v.Width, v.Height
		m["format"] = formatOf(v.MIME, "")
		m["hasTransparency"] = v.Alpha
		m["hasColorProfile"], m["quality"], m["density"], m["pHash"] = false, 0, 72, ""
		m["exif"] = struct{}{}
	}
	return m
}

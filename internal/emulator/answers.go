package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// answer is what a handler decided to say; serving it, or cutting it off, is one
// function's business. Exactly one of body, raw and serve is set, or none.
type answer struct {
	status int
	body   any
	raw    []byte
	header http.Header
	serve  func(w http.ResponseWriter, r *http.Request)
}

// help is what ImageKit writes under every refusal.
const help = "For support kindly contact us at support@imagekit.io ."

// What ImageKit says, word for word, where reference documents know the words.
const (
	sayNoKey           = "Your request does not contain private API key."
	sayUnknownKey      = "Your account cannot be authenticated."
	sayInvalidID       = "Your request contains invalid fileId parameter."
	sayNoFile          = "The requested file does not exist."
	sayNoFiles         = "The requested file(s) does not exist."
	sayInvalidVersion  = "Your request contains invalid versionId parameter."
	sayNoVersion       = "The requested file version does not exist."
	sayCurrentVersion  = "You cannot delete current version of a file."
	sayNoAsset         = "The requested asset does not exist."
	sayInvalidMetadata = "Invalid custom metadata."

	sayNoUploadFile   = "Your request is missing file parameter."
	sayBothSignature  = "Your request contains both signature and basic auth parameter. Use only one method, you might be exposing your private API key."
	sayBothToken      = "Your request contains both token and basic auth parameter. Use only one method, you might be exposing your private API key."
	sayExpire         = "Your request contains invalid expire parameter. Expire parameter should be a Unix time in less than 1 hour into the future."
	sayBadSignature   = "Your request contains invalid signature parameter."
	sayUsedToken      = "A token can be used only once. Your request contains a token that was used before."
	sayNameTaken      = "A file with the same name already exists at the exact location. We could not overwrite it because both overwriteFile and useUniqueFileName are set to false."
	sayTooLarge       = "Your request contains invalid file parameter. The file size exceeds limits."
	sayBadTransform   = "The file could not be uploaded because the transformation field is invalid."
	sayNoTransform    = "The file could not be uploaded because transformations are supported only for image and video files."
	sayChecksSyntax   = "Your request contains invalid syntax for the checks parameter."
	sayChecksFailed   = "Your request failed 'checks' validation."
	sayPayloadDiffers = "Your request contains invalid payload. It does not match with the payload used to generate token."
	sayNoToken        = "Your request is missing token parameter."
	sayExpiredToken   = "Your request contains expired token."
	sayBadToken       = "Your request has invalid token."
	sayQueued         = "The pre-transformation has been queued successfully."

	sayBadSort = "Your request contains invalid value for sort parameters."
	sayBadType = "Your request contains invalid value for type parameter. Please provide one of the following: file, file-version, folder, all."
)

func ok(body any) answer { return answer{status: http.StatusOK, body: body} }

func refuse(status int, message string) answer {
	return answer{status: status, body: map[string]any{"message": message, "help": help}}
}

func refuseBecause(status int, reason, message string) answer {
	return answer{status: status, body: map[string]any{"message": message, "help": help, "reason": reason}}
}

// empty is 204, or the 200 {} that the Go SDK can read.
func (e *Emulator) empty() answer {
	if e.settings.Load().EmptyBodyAs200 {
		return ok(struct{}{})
	}
	return answer{status: http.StatusNoContent}
}

// render turns an answer that is not served by itself into bytes.
func (a answer) render() ([]byte, error) {
	if a.raw != nil || a.body == nil {
		return a.raw, nil
	}
	b, err := encode(a.body)
	if err != nil {
		return nil, err
	}
	return b[:len(b)-1], nil
}

// decodeStrict reads one JSON value and refuses fields that nobody knows.
func decodeStrict(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("the body is not what this call takes: %w", err)
	}
	if dec.More() {
		return errors.New("the body holds more than one JSON value")
	}
	return nil
}

// decodeBody reads one JSON object of a management call; ImageKit ignores fields it
// does not know.
func decodeBody(r *http.Request, into any) error {
	return json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(into)
}

type versionInfo struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// fileView is a File as details, lists and webhooks show it.
type fileView struct {
	Type              string         `json:"type"`
	Name              string         `json:"name"`
	CreatedAt         string         `json:"createdAt"`
	UpdatedAt         string         `json:"updatedAt"`
	FileID            string         `json:"fileId"`
	Tags              []string       `json:"tags"`
	AITags            []string       `json:"AITags"` // always null: nothing here tags
	VersionInfo       versionInfo    `json:"versionInfo"`
	EmbeddedMetadata  map[string]any `json:"embeddedMetadata"` // always null: nothing here reads it
	IsPublished       bool           `json:"isPublished"`
	CustomCoordinates *string        `json:"customCoordinates"`
	CustomMetadata    map[string]any `json:"customMetadata"`
	IsPrivateFile     bool           `json:"isPrivateFile"`
	URL               string         `json:"url"`
	Thumbnail         string         `json:"thumbnail"`
	FileType          string         `json:"fileType"`
	FilePath          string         `json:"filePath"`
	Width             int            `json:"width,omitempty"`
	Height            int            `json:"height,omitempty"`
	Size              int64          `json:"size"`
	HasAlpha          *bool          `json:"hasAlpha,omitempty"`
	MIME              string         `json:"mime,omitempty"`
	Description       string         `json:"description,omitempty"`
}

// view shows version v of r; kind is "file" for the current one.
func (e *Emulator) view(r *record, v *version, kind string) fileView {
	query := "?updatedAt=" + strconv.FormatInt(v.Updated, 10)
	if kind == "file-version" {
		query += "&ik-obj-version=" + v.ID
	}
	f := fileView{
		Type: kind, FileID: r.ID, Name: r.Name, FilePath: r.path(),
		CreatedAt: stampText(r.Created), UpdatedAt: stampText(v.Updated),
		Tags: v.Tags, VersionInfo: v.info(), IsPrivateFile: v.Private, IsPublished: !v.Draft,
		CustomCoordinates: orNull(v.Coords), CustomMetadata: orEmpty(v.Custom),
		URL: e.urlOf(r.path()) + query, Thumbnail: e.urlOf(r.path()) + query + "&tr=n-ik_ml_thumbnail",
		FileType: v.fileType(), MIME: v.MIME, Width: v.Width, Height: v.Height, Size: v.Size, Description: v.Text,
	}
	if v.fileType() == "image" {
		f.HasAlpha = &v.Alpha
	}
	return f
}

func (e *Emulator) current(r *record) fileView { return e.view(r, &r.version, "file") }

func (v *version) info() versionInfo {
	return versionInfo{ID: v.ID, Name: "Version " + strconv.Itoa(v.Number)}
}

func (v *version) fileType() string {
	if strings.HasPrefix(v.MIME, "image/") {
		return "image"
	}
	return "non-image"
}

// urlOf is the delivery URL of a path, percent-encoded, without a query.
func (e *Emulator) urlOf(path string) string { return e.Endpoint() + escapePath(path) }

func escapePath(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// stampText is the one form of time in answers.
func stampText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

package emulator

import (
	"slices"
	"strings"
	"time"
)

// item is one line of a listing: a file, an earlier version of one, or a folder.
type item struct {
	kind   string
	file   *record
	v      *version
	folder *folder
}

func fileItem(r *record) item { return item{kind: "file", file: r, v: &r.version} }

// folderView is a folder as listings show it.
type folderView struct {
	Type           string   `json:"type"`
	FolderID       string   `json:"folderId"`
	Name           string   `json:"name"`
	FolderPath     string   `json:"folderPath"`
	CustomMetadata struct{} `json:"customMetadata"`
	CreatedAt      string   `json:"createdAt"`
	UpdatedAt      string   `json:"updatedAt"`
}

func (e *Emulator) show(it item) any {
	if it.folder == nil {
		return e.view(it.file, it.v, it.kind)
	}
	f := it.folder
	return folderView{
		Type: "folder", FolderID: f.ID, Name: f.name(), FolderPath: f.Path,
		CreatedAt: stampText(f.Created), UpdatedAt: stampText(f.Updated),
	}
}

func (it *item) id() string {
	if it.folder != nil {
		return it.folder.ID
	}
	return it.file.ID
}

func (it *item) name() string {
	if it.folder != nil {
		return it.folder.name()
	}
	return it.file.Name
}

// parent is the folder it lies in.
func (it *item) parent() string {
	if it.folder != nil {
		return it.folder.parent()
	}
	return it.file.Folder
}

func (it *item) created() int64 {
	if it.folder != nil {
		return it.folder.Created
	}
	return it.file.Created
}

func (it *item) updated() int64 {
	if it.folder != nil {
		return it.folder.Updated
	}
	return it.v.Updated
}

// value is what a searchQuery compares with.
func (it *item) value(field string) value {
	switch field {
	case "id":
		return textValue(it.id())
	case "name":
		return textValue(it.name())
	case "type":
		return textValue(it.kind)
	case "path":
		return textValue(it.parent())
	case "createdAt":
		return numberValue(float64(it.created()))
	case "updatedAt":
		return numberValue(float64(it.updated()))
	}
	if it.folder != nil {
		return value{}
	}
	return it.v.value(field, it.file.Name)
}

func (v *version) value(field, name string) value {
	switch field {
	case "tags":
		return wordsValue(v.Tags)
	case "size":
		return numberValue(float64(v.Size))
	case "width":
		return value{has: v.Width > 0, number: float64(v.Width)}
	case "height":
		return value{has: v.Height > 0, number: float64(v.Height)}
	case "format":
		return textValue(formatOf(v.MIME, name))
	case "private":
		return flagValue(v.Private)
	case "published":
		return flagValue(!v.Draft)
	case "transparency":
		return flagValue(v.Alpha)
	}
	if name, custom := strings.CutPrefix(field, "customMetadata."); custom {
		return metadataValue(v.Custom[name])
	}
	return value{} // embedded metadata and uploaders are not kept
}

func metadataValue(v any) value {
	switch v := v.(type) {
	case string:
		out := textValue(v)
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			out.number = float64(t.UnixMilli())
		}
		return out
	case float64:
		return numberValue(v)
	case bool:
		return flagValue(v)
	case []any:
		var words []string
		for _, w := range v {
			if s, isText := w.(string); isText {
				words = append(words, s)
			}
		}
		return wordsValue(words)
	}
	return value{}
}

// admits decides one item.
func (q *listing) admits(it *item) bool {
	if !q.kinds[it.kind] || q.folder != "" && it.parent() != q.folder || q.name != "" && it.name() != q.name {
		return false
	}
	if q.fileType != "all" && (it.v == nil || it.v.fileType() != q.fileType) {
		return false
	}
	if len(q.tags) > 0 && (it.v == nil || !slices.ContainsFunc(q.tags, func(t string) bool { return slices.Contains(it.v.Tags, t) })) {
		return false
	}
	return q.where == nil || q.where.holds(it.value)
}

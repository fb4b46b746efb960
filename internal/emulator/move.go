package emulator

import (
	"net/http"
	"slices"
)

// Reasons of the path endpoints.
const (
	missingParameter = "MISSING_PARAMETER"
	invalidParameter = "INVALID_PARAMETER"
	sameDestination  = "SAME_SOURCE_AND_DESTINATION"
	invalidFolder    = "INVALID_FOLDER_PATH"
	tooManyVersions  = "VERSION_LIMIT_EXCEEDED"
)

// transfer is the body of copy and move.
type transfer struct {
	Source   string `json:"sourceFilePath"`
	To       string `json:"destinationPath"`
	Versions bool   `json:"includeFileVersions"`
}

// transferred is a file on its way to another folder.
type transferred struct {
	file, there *record // there is what stands at the destination, nil for nothing
	folder      string
	changes     []change
}

func (e *Emulator) copyFile(r *http.Request) answer {
	return e.transfer(r, func(t *transferred, ask *transfer) ([]change, answer) {
		if t.there != nil {
			versions := []version{t.file.version}
			if ask.Versions {
				versions = append(slices.Clone(t.file.Earlier), t.file.version)
			}
			return e.mergeInto(t, versions, nil)
		}
		c := e.copied(t.file, t.folder, ask.Versions)
		changes := append(t.changes, change{Put: c})
		return append(changes, e.announce("file.created", c.ID, nil, e.current(c))...), e.empty()
	})
}

func (e *Emulator) moveFile(r *http.Request) answer {
	return e.transfer(r, func(t *transferred, _ *transfer) ([]change, answer) {
		if t.there != nil {
			gone := append([]change{{Drop: t.file.ID}}, e.announceDeleted(t.file)...)
			return e.mergeInto(t, append(slices.Clone(t.file.Earlier), t.file.version), gone)
		}
		return append(t.changes, e.moved(t.file, t.folder, t.file.Name)...), e.empty()
	})
}

func (e *Emulator) transfer(r *http.Request, decide func(*transferred, *transfer) ([]change, answer)) answer {
	var ask transfer
	if err := decodeBody(r, &ask); err != nil || ask.Source == "" || ask.To == "" {
		return refuseBecause(http.StatusBadRequest, missingParameter, "sourceFilePath and destinationPath are required.")
	}
	where, err := cleanFolder(ask.To)
	if err != nil {
		return refuseBecause(http.StatusBadRequest, invalidFolder, err.Error())
	}
	return e.change(func() ([]change, answer) {
		f := e.lib.at(rooted(ask.Source))
		if f == nil {
			return nil, refuseBecause(http.StatusNotFound, "SOURCE_FILE_MISSING", "No file found with filePath `"+ask.Source+"`.")
		}
		if f.Folder == where {
			return nil, refuseBecause(http.StatusBadRequest, sameDestination, "The source and the destination are the same.")
		}
		t := &transferred{file: f, folder: where, there: e.lib.at(join(where, f.Name))}
		t.changes = e.makeFolders(where, e.Now().UnixMilli())
		return decide(t, &ask)
	})
}

// rooted gives a path its leading slash.
func rooted(path string) string {
	if path != "" && path[0] != '/' {
		return "/" + path
	}
	return path
}

// mergeInto puts versions of one file on top of the file that has its name at the
// destination; gone is what becomes of the source.
func (e *Emulator) mergeInto(t *transferred, versions []version, gone []change) ([]change, answer) {
	if len(t.there.Earlier)+1+len(versions) > maxVersions {
		return nil, refuseBecause(http.StatusBadRequest, tooManyVersions, "A file cannot have more than 100 versions.")
	}
	next := *t.there
	next.Earlier = slices.Clone(t.there.Earlier)
	for _, v := range versions {
		next.Earlier = append(next.Earlier, next.version)
		v.Number, v.ID = next.highest()+1, newID(e.Now())
		v.Updated = max(e.Now().UnixMilli(), next.Updated+1)
		next.version = v
	}
	changes := append(t.changes, gone...)
	return append(append(changes, change{Put: &next}), e.announceVersion(&next)...), e.empty()
}

// copied is a new file like another: its own id, its own times.
func (e *Emulator) copied(r *record, folder string, versions bool) *record {
	now := e.Now()
	c := *r
	c.ID, c.Folder, c.Created = newID(now), folder, now.UnixMilli()
	c.Earlier = nil
	if versions {
		c.Earlier = slices.Clone(r.Earlier)
	}
	for i := range c.Earlier {
		c.Earlier[i].ID, c.Earlier[i].Number = newID(now), i+1
	}
	c.version.ID, c.Number = newID(now), len(c.Earlier)+1
	if len(c.Earlier) == 0 {
		c.version.ID = c.ID
	} else {
		c.Earlier[0].ID = c.ID
	}
	c.Uploaded, c.Updated = now.UnixMilli(), now.UnixMilli()
	return &c
}

// moved gives a file another path: the same file, or with moveChangesId another one
// in its place.
func (e *Emulator) moved(r *record, folder, name string) []change {
	if !e.settings.Load().MoveChangesID {
		next := e.next(r)
		next.Folder, next.Name = folder, name
		return append([]change{{Put: next}}, e.announceUpdated(next)...)
	}
	other := e.copied(r, folder, true)
	other.Name = name
	changes := append([]change{{Drop: r.ID}}, e.announceDeleted(r)...)
	changes = append(changes, change{Put: other})
	return append(changes, e.announce("file.created", other.ID, nil, e.current(other))...)
}

// rename is PUT /v1/files/rename.
func (e *Emulator) rename(r *http.Request) answer {
	var ask struct {
		Path  string `json:"filePath"`
		Name  string `json:"newFileName"`
		Purge bool   `json:"purgeCache"`
	}
	err := decodeBody(r, &ask)
	switch {
	case err != nil || ask.Path == "" || ask.Name == "":
		return refuseBecause(http.StatusBadRequest, missingParameter, "filePath and newFileName are required.")
	case cleanName(ask.Name) != ask.Name:
		return refuseBecause(http.StatusBadRequest, invalidParameter, "newFileName holds characters that a name cannot have.")
	}
	return e.change(func() ([]change, answer) {
		f := e.lib.at(rooted(ask.Path))
		switch {
		case f == nil:
			return nil, refuseBecause(http.StatusNotFound, "FILE_MISSING", "No file found with filePath `"+ask.Path+"`.")
		case f.Name == ask.Name:
			return nil, refuseBecause(http.StatusBadRequest, "SAME_OLD_AND_NEW_NAME", "The old and the new name are the same.")
		case e.lib.at(join(f.Folder, ask.Name)) != nil:
			return nil, refuseBecause(http.StatusConflict, "FILE_ALREADY_EXISTS", "A file with the name `"+ask.Name+"` already exists in the same folder.")
		}
		return e.moved(f, f.Folder, ask.Name), ok(e.purged(ask.Purge))
	})
}

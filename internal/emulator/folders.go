package emulator

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// tooMany is how many files a folder operation may touch; ImageKit documents it for
// deleting.
const tooMany = 100_000

// inside says whether a path is a folder or lies below it.
func inside(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// below are the files in and under a folder; false when there are too many.
func (l *library) below(path string) (files []*record, fits bool) {
	for _, r := range l.created.items {
		if inside(r.Folder, path) {
			files = append(files, r)
		}
	}
	for _, g := range l.generations {
		if !inside(g.Folder, path) {
			continue
		}
		if g.live()+len(files) > tooMany {
			return nil, false
		}
		for i := range g.Count {
			if !g.hidden[i] {
				files = append(files, g.record(i))
			}
		}
	}
	return files, len(files) <= tooMany
}

func (l *library) foldersBelow(path string) (paths []string) {
	for p := range l.folders {
		if inside(p, path) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

func (e *Emulator) createFolder(r *http.Request) answer {
	var ask struct {
		Name   string `json:"folderName"`
		Parent string `json:"parentFolderPath"`
	}
	if err := decodeBody(r, &ask); err != nil || ask.Name == "" || ask.Parent == "" {
		return refuseBecause(http.StatusBadRequest, missingParameter, "folderName and parentFolderPath are required.")
	}
	path, err := cleanFolder(ask.Parent + "/" + ask.Name)
	if err != nil {
		return refuseBecause(http.StatusBadRequest, invalidFolder, err.Error())
	}
	return e.change(func() ([]change, answer) {
		return e.makeFolders(path, e.Now().UnixMilli()), answer{status: http.StatusCreated, body: struct{}{}}
	})
}

// many is what settings.webhooks.bulkEvents leaves of the webhooks of a change
// that touches many files.
func (e *Emulator) many(changes []change) []change {
	if e.settings.Load().Webhooks.BulkEvents {
		return changes
	}
	return slices.DeleteFunc(changes, func(c change) bool { return c.Hook != nil })
}

func (e *Emulator) deleteFolder(r *http.Request) answer {
	var ask struct {
		Path string `json:"folderPath"`
	}
	if err := decodeBody(r, &ask); err != nil || strings.Trim(ask.Path, "/") == "" {
		return refuseBecause(http.StatusBadRequest, missingParameter, "folderPath is required and is not the root.")
	}
	path := "/" + strings.Trim(ask.Path, "/")
	return e.change(func() ([]change, answer) {
		files, a, refused := e.movable(path, http.StatusNotFound, "FOLDER_NOT_FOUND", "No folder found with folderPath `"+ask.Path+"`.")
		if refused {
			return nil, a
		}
		var changes []change
		for _, f := range files {
			changes = append(append(changes, change{Drop: f.ID}), e.announceDeleted(f)...)
		}
		for _, p := range e.lib.foldersBelow(path) {
			changes = append(changes, change{DropFolder: p})
		}
		return e.many(changes), e.empty()
	})
}

// movable are the files of a folder that an operation may take on.
func (e *Emulator) movable(path string, status int, reason, sayMissing string) ([]*record, answer, bool) {
	if e.lib.folders[path] == nil {
		return nil, refuseBecause(status, reason, sayMissing), true
	}
	files, fits := e.lib.below(path)
	if !fits {
		return nil, refuseBecause(http.StatusBadRequest, "TOO_MANY_OBJECTS", "The folder holds more than 100000 files."), true
	}
	return files, answer{}, false
}

// folderJob is the body of the three folder jobs. They run at once; their job is
// complete when it is first asked about.
type folderJob struct {
	Source   string `json:"sourceFolderPath"`
	To       string `json:"destinationPath"`
	Path     string `json:"folderPath"`
	NewName  string `json:"newFolderName"`
	Versions bool   `json:"includeVersions"`
	Purge    bool   `json:"purgeCache"`
}

func (e *Emulator) copyFolder(r *http.Request) answer { return e.relocate(r, "COPY_FOLDER") }
func (e *Emulator) moveFolder(r *http.Request) answer { return e.relocate(r, "MOVE_FOLDER") }

func (e *Emulator) relocate(r *http.Request, kind string) answer {
	var ask folderJob
	if err := decodeBody(r, &ask); err != nil || ask.Source == "" || ask.To == "" {
		return refuseBecause(http.StatusBadRequest, missingParameter, "sourceFolderPath and destinationPath are required.")
	}
	from := "/" + strings.Trim(ask.Source, "/")
	to, err := cleanFolder(ask.To)
	switch {
	case err != nil:
		return refuseBecause(http.StatusBadRequest, invalidFolder, err.Error())
	case from == "/":
		return refuseBecause(http.StatusBadRequest, "SOURCE_IS_ROOT", "The root folder cannot be copied or moved.")
	case inside(to, from):
		return refuseBecause(http.StatusBadRequest, sameDestination, "A folder cannot go into itself.")
	}
	return e.change(func() ([]change, answer) {
		files, a, refused := e.movable(from, http.StatusNotFound, "NO_FILES_FOLDER", "No files or folders found at `"+ask.Source+"`.")
		if refused {
			return nil, a
		}
		target := join(to, from[strings.LastIndexByte(from, '/')+1:])
		if target == from {
			return nil, refuseBecause(http.StatusBadRequest, sameDestination, "The source and the destination are the same.")
		}
		changes, a := e.resettle(files, from, target, kind, ask.Versions)
		if a.status != 0 {
			return nil, a
		}
		return changes, ok(map[string]string{"jobId": e.job(kind, false)})
	})
}

func (e *Emulator) renameFolder(r *http.Request) answer {
	var ask folderJob
	err := decodeBody(r, &ask)
	if err != nil || strings.Trim(ask.Path, "/") == "" || ask.NewName == "" || cleanName(ask.NewName) != ask.NewName {
		return refuseBecause(http.StatusBadRequest, missingParameter, "folderPath and a valid newFolderName are required.")
	}
	from := "/" + strings.Trim(ask.Path, "/")
	target := from[:strings.LastIndexByte(from, '/')+1] + ask.NewName
	return e.change(func() ([]change, answer) {
		files, a, refused := e.movable(from, http.StatusNotFound, "FOLDER_NOT_FOUND", "Source folder not found.")
		switch {
		case refused:
			return nil, a
		case e.lib.folders[target] != nil:
			return nil, refuseBecause(http.StatusConflict, "FOLDER_ALREADY_EXISTS", "A folder with this name already exists.")
		}
		changes, a := e.resettle(files, from, target, "MOVE_FOLDER", true)
		if a.status != 0 {
			return nil, a
		}
		return changes, answer{status: http.StatusAccepted, body: map[string]string{"jobId": e.job("RENAME_FOLDER", ask.Purge)}}
	})
}

// resettle copies or moves the files of one folder tree to another. A file that
// meets its name there becomes versions of the one that has it.
func (e *Emulator) resettle(files []*record, from, target, kind string, versions bool) ([]change, answer) {
	changes := e.resettleFolders(from, target, kind == "MOVE_FOLDER")
	for _, f := range files {
		where := target + strings.TrimPrefix(f.Folder, from)
		some, a := e.resettleFile(f, where, kind, versions)
		if a.status != 0 {
			return nil, a
		}
		changes = append(changes, some...)
	}
	return e.many(changes), answer{}
}

// resettleFolders makes the tree at target; a folder that moves stays the same one.
func (e *Emulator) resettleFolders(from, target string, moving bool) []change {
	now := e.Now()
	changes := e.makeFolders(target[:max(strings.LastIndexByte(target, '/'), 1)], now.UnixMilli())
	for _, p := range e.lib.foldersBelow(from) {
		there := target + strings.TrimPrefix(p, from)
		next := &folder{ID: newID(now), Path: there, Created: now.UnixMilli(), Updated: now.UnixMilli()}
		if moving {
			changes = append(changes, change{DropFolder: p})
			next.ID, next.Created = e.lib.folders[p].ID, e.lib.folders[p].Created
		}
		if e.lib.folders[there] == nil {
			changes = append(changes, change{Folder: next})
		}
	}
	return changes
}

func (e *Emulator) resettleFile(f *record, where, kind string, versions bool) ([]change, answer) {
	t := &transferred{file: f, folder: where, there: e.lib.at(join(where, f.Name))}
	all := append(slices.Clone(f.Earlier), f.version)
	moving := kind == "MOVE_FOLDER"
	switch {
	case t.there != nil && moving:
		changes, a := e.mergeInto(t, all, append([]change{{Drop: f.ID}}, e.announceDeleted(f)...))
		return changes, onlyRefusal(a)
	case t.there != nil && versions:
		changes, a := e.mergeInto(t, all, nil)
		return changes, onlyRefusal(a)
	case t.there != nil:
		changes, a := e.mergeInto(t, []version{f.version}, nil)
		return changes, onlyRefusal(a)
	case moving:
		return e.moved(f, where, f.Name), answer{}
	}
	c := e.copied(f, where, versions)
	return append([]change{{Put: c}}, e.announce("file.created", c.ID, nil, e.current(c))...), answer{}
}

func onlyRefusal(a answer) answer {
	if a.status < 300 {
		return answer{}
	}
	return a
}

// job remembers a finished folder job, until the process ends.
func (e *Emulator) job(kind string, purge bool) string {
	id := newID(e.Now())
	done := map[string]string{"jobId": id, "type": kind, "status": "Completed"}
	if purge {
		done["purgeRequestId"] = e.purge()
	}
	e.jobs.Store(id, done)
	return id
}

func (e *Emulator) showJob(r *http.Request) answer {
	done, known := e.jobs.Load(chi.URLParam(r, "jobId"))
	if !known {
		return refuse(http.StatusNotFound, "The requested job does not exist.")
	}
	return ok(done)
}

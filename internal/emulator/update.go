package emulator

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"
)

// patch is the body of PATCH /v1/files/{fileId}/details. A field that is absent is
// left alone; null takes its value away.
type patch struct {
	Tags         json.RawMessage `json:"tags"`
	Coords       json.RawMessage `json:"customCoordinates"`
	Custom       map[string]any  `json:"customMetadata"`
	Description  *string         `json:"description"`
	RemoveAITags json.RawMessage `json:"removeAITags"`
	Extensions   []struct {
		Name string `json:"name"`
	} `json:"extensions"`
	Publish *struct {
		IsPublished bool `json:"isPublished"`
	} `json:"publish"`
}

func (e *Emulator) update(r *http.Request) answer {
	id := chi.URLParam(r, "fileId")
	if !validID(id) {
		return refuse(http.StatusBadRequest, sayInvalidID)
	}
	var p patch
	if err := decodeBody(r, &p); err != nil {
		return refuse(http.StatusBadRequest, "Your request contains an invalid body: "+err.Error())
	}
	if wrong := e.checkMetadata(p.Custom); wrong != nil {
		return refuseMetadata(wrong)
	}
	return e.change(func() ([]change, answer) {
		f := e.lib.file(id)
		if f == nil || e.hiding(f) {
			return nil, refuse(http.StatusNotFound, sayNoFile)
		}
		next := e.next(f)
		if say := p.apply(next); say != "" {
			return nil, refuse(http.StatusBadRequest, say)
		}
		return append([]change{{Put: next}}, e.announceUpdated(next)...), ok(e.updated(next, &p))
	})
}

func (p *patch) apply(r *record) (say string) {
	if p.Tags != nil {
		var tags []string
		if json.Unmarshal(p.Tags, &tags) != nil {
			return "Your request contains invalid tags parameter. It is an array of texts or null."
		}
		if say := checkTags(tags); say != "" {
			return say
		}
		r.Tags = slices.Clip(tags)
	}
	if p.Coords != nil {
		var coords *string
		if json.Unmarshal(p.Coords, &coords) != nil || coords != nil && !validCoords(*coords) {
			return "Your request contains invalid customCoordinates parameter. It is x,y,width,height."
		}
		r.Coords = ""
		if coords != nil {
			r.Coords = *coords
		}
	}
	r.Custom = mergeMetadata(r.Custom, p.Custom)
	if p.Description != nil {
		r.Text = *p.Description
	}
	if p.Publish != nil {
		r.Draft = !p.Publish.IsPublished
	}
	return ""
}

// mergeMetadata lays a patch over values; null takes one away.
func mergeMetadata(values, patch map[string]any) map[string]any {
	if len(patch) == 0 {
		return values
	}
	out := maps.Clone(orEmpty(values))
	for k, v := range patch {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// updatedView is a File with what became of the extensions.
type updatedView struct {
	fileView
	ExtensionStatus map[string]string `json:"extensionStatus,omitempty"`
}

func (e *Emulator) updated(r *record, p *patch) updatedView {
	v := updatedView{fileView: e.current(r)}
	for _, x := range p.Extensions {
		if v.ExtensionStatus == nil {
			v.ExtensionStatus = map[string]string{}
		}
		v.ExtensionStatus[x.Name] = "pending"
	}
	return v
}

package simulate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Acts on the library itself.

// uploadV1 asks for a signature, uploads, and mostly reports.
func (p *people) uploadV1(d draw, more map[string]string) {
	user := p.user(d)
	answer, err := p.call(d, user, http.MethodGet, "/generate-auth-params", nil)
	if err != nil || answer.status != http.StatusOK {
		p.expectV1(answer, err)
		return
	}
	var grant struct {
		Token, Signature, PublicKey string
		Expire                      int64
	}
	if err := json.Unmarshal(answer.body, &grant); err != nil {
		p.w.record.wrong("auth-params", "not JSON: %s", answer.body)
		return
	}
	name, folder := p.name(d)
	fields := map[string]string{"fileName": name, "folder": folder, "useUniqueFileName": "false", "publicKey": grant.PublicKey,
		"token": grant.Token, "signature": grant.Signature, "expire": fmt.Sprint(grant.Expire)}
	for k, v := range more {
		fields[k] = v
	}
	id := p.send("v1", fields, true, content(d, name))
	if id == "" {
		return
	}
	p.w.reached.Hit("upload/v1")
	p.reportLater(d, p.knows(&upload{id: id, name: name, folder: folder, user: user, at: time.Now()}))
}

// expectV1 holds the refusal against the mode.
func (p *people) expectV1(answer said, err error) {
	if err == nil && answer.status == http.StatusGone && !p.w.Shape.Signed {
		p.w.record.wrong("auth-params", "410 in claim mode: %s", answer.body)
	}
}

// uploadV2 asks for a token with a ticket in it, uploads what it allows, and mostly
// reports.
func (p *people) uploadV2(d draw) {
	user := p.user(d)
	name, folder := p.name(d)
	ask := map[string]any{"fileName": name, "folder": folder, "useUniqueFileName": "false"}
	if d.chance(0.4) {
		ask["tags"] = one(d, "red", "red,blue", "ü,ß")
	}
	answer, err := p.call(d, user, http.MethodPost, "/generate-upload-token", map[string]any{"uploadPayload": ask})
	if err != nil || answer.status != http.StatusOK {
		return
	}
	var grant struct {
		Token         string            `json:"token"`
		UploadPayload map[string]string `json:"uploadPayload"`
	}
	if err := json.Unmarshal(answer.body, &grant); err != nil {
		p.w.record.wrong("upload-token", "not JSON: %s", answer.body)
		return
	}
	fields := map[string]string{"token": grant.Token}
	for k, v := range grant.UploadPayload {
		fields[k] = v
	}
	id := p.send("v2", fields, true, content(d, name))
	if id == "" {
		return
	}
	p.w.reached.Hit("upload/v2-ticket")
	p.reportLater(d, p.knows(&upload{id: id, name: name, folder: folder, user: user, at: time.Now()}))
}

// uploadServer uploads with the private key; nobody reports it.
func (p *people) uploadServer(d draw) *upload {
	name, folder := p.name(d)
	fields := map[string]string{"fileName": name, "folder": folder, "useUniqueFileName": "false"}
	if d.chance(0.3) {
		fields["customMetadata"] = `{"season":"winter","n":3}`
	}
	id := p.send("v1", fields, false, content(d, name))
	if id == "" {
		return nil
	}
	return p.knows(&upload{id: id, name: name, folder: folder, at: time.Now()})
}

func (p *people) overwrite(d draw) {
	u := p.one(d)
	if u == nil {
		return
	}
	fields := map[string]string{"fileName": u.name, "folder": u.folder, "useUniqueFileName": "false", "overwriteFile": "true"}
	fields["overwriteTags"] = one(d, "true", "false")
	if p.send("v1", fields, false, content(d, u.name)) == u.id {
		p.w.reached.Hit("upload/overwrite")
	}
}

// samePath deletes a file and uploads another to its place.
func (p *people) samePath(d draw) {
	u := p.one(d)
	if u == nil || !p.remove(u) {
		return
	}
	id := p.send("v1", map[string]string{"fileName": u.name, "folder": u.folder, "useUniqueFileName": "false"}, false, content(d, u.name))
	if id != "" {
		p.w.reached.Hit("upload/same-path")
		p.knows(&upload{id: id, name: u.name, folder: u.folder, at: time.Now()})
	}
}

func (p *people) move(d draw) {
	u := p.one(d)
	if u == nil {
		return
	}
	to := one(d, "/", "/a", "/moved", "/moved/far")
	answer, err := p.library(http.MethodPost, "/v1/files/move", map[string]any{"sourceFilePath": u.path(), "destinationPath": to})
	if err == nil && answer.status/100 == 2 {
		p.mu.Lock()
		u.folder = to
		p.mu.Unlock()
		p.w.reached.Hit("file/moved")
	}
}

func (p *people) rename(d draw) {
	u := p.one(d)
	if u == nil {
		return
	}
	name, _ := p.name(d)
	answer, err := p.library(http.MethodPut, "/v1/files/rename", map[string]any{"filePath": u.path(), "newFileName": name})
	if err == nil && answer.status/100 == 2 {
		p.mu.Lock()
		u.name = name
		p.mu.Unlock()
		p.w.reached.Hit("file/renamed")
	}
}

// edit changes tags or metadata; now and then the ticket goes with them.
func (p *people) edit(d draw) {
	u := p.one(d)
	if u == nil {
		return
	}
	body := map[string]any{"customMetadata": map[string]any{"edited": d.IntN(1000)}}
	if d.chance(0.3) {
		body = map[string]any{"tags": []string{"edited", fmt.Sprint(d.IntN(5))}}
	}
	if answer, err := p.library(http.MethodPatch, pathOf("v1", "files", u.id, "details"), body); err == nil && answer.status/100 == 2 {
		p.w.reached.Hit("file/edited")
	}
}

func (p *people) remove(u *upload) bool {
	answer, err := p.library(http.MethodDelete, pathOf("v1", "files", u.id), nil)
	if err != nil || answer.status/100 != 2 {
		return false
	}
	p.mu.Lock()
	u.gone = true
	p.mu.Unlock()
	p.w.trace.say("people", "deleted %s", u.id)
	p.w.reached.Hit("file/deleted")
	return true
}

// removeMany deletes most of the library at once.
func (p *people) removeMany(d draw) {
	here, removed := p.here(), 0
	for i, u := range here {
		if i%4 != 3 && p.remove(u) {
			removed++
		}
	}
	if removed > 10 {
		p.w.reached.Hit("file/deleted-many")
	}
}

// ticketOf reads the ticket that lies in a file, as anybody can who sees the file.
func (p *people) ticketOf(u *upload) string {
	answer, err := p.library(http.MethodGet, pathOf("v1", "files", u.id, "details"), nil)
	if err != nil || answer.status != http.StatusOK {
		return ""
	}
	var f struct {
		Tags           []string       `json:"tags"`
		CustomMetadata map[string]any `json:"customMetadata"`
	}
	_ = json.Unmarshal(answer.body, &f)
	if s, ok := f.CustomMetadata[p.w.Shape.TicketField].(string); ok && p.w.Shape.TicketField != "" {
		return s
	}
	for _, t := range f.Tags {
		if len(t) > 20 {
			return t
		}
	}
	return ""
}

// bearing are upload fields with this ticket in its place.
func (p *people) bearing(ticket string) map[string]string {
	if field := p.w.Shape.TicketField; field != "" {
		raw, _ := json.Marshal(map[string]string{field: ticket})
		return map[string]string{"customMetadata": string(raw)}
	}
	return map[string]string{"tags": ticket}
}

func (p *people) forgeTicket(d draw) {
	p.w.reached.Hit("client/forged-ticket")
	p.uploadV1(d, p.bearing(fmt.Sprintf("tu1.%x.forged.%x", d.Uint64(), d.Uint64())))
}

// copyTicket puts somebody's ticket on a file of one's own.
func (p *people) copyTicket(d draw) {
	for _, u := range p.here() {
		if t := p.ticketOf(u); t != "" {
			p.w.reached.Hit("client/copied-ticket")
			p.uploadV1(d, p.bearing(t))
			return
		}
	}
}

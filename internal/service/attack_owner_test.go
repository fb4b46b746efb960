package service_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/internal/ticket"
)

// sealedBy is a ticket sealed with a key for user in account.
func sealedBy(t testing.TB, key, user, account string) string {
	t.Helper()
	keys, err := ticket.NewKeys(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keys.Seal(user, account)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// attackOwnership: eve wants ann's files, or at least files that are nobody's. ann has
// one by ticket and one by claim.
func attackOwnership(in *installation) {
	fixed := func(folder, name string) map[string]string {
		return map[string]string{"folder": folder, "fileName": name, "useUniqueFileName": "false"}
	}
	proven := in.uploadV2("ann", map[string]any{"folder": "/victim", "fileName": "proven.png", "useUniqueFileName": "false"}, 1)
	claimed := in.uploadV1("ann", fixed("/victim", "claimed.png"), 2)
	in.outcomeIs("ann", in.report("ann", proven), "verified")
	in.outcomeIs("ann", in.report("ann", claimed), "verified")
	owned := func(in *installation) {
		in.t.Helper()
		in.belongs(proven, "ann", "proven")
		in.belongs(claimed, "ann", "claimed")
	}
	owned(in)
	annsTicket := in.storedTicket(proven)

	in.t.(*testing.T).Run("ClaimsOnOthersOldAndLaterFiles", in.sub(func(in *installation) {
		in.control("POST", "files/generate", map[string]any{"count": 1, "folder": "/old", "spread": "300h"})
		old := in.onlyIn("/old")
		later := in.uploadServer(fixed("/later", "l.png"), 3)
		in.uploadServer(fixed("/later", "l.png"), 4)
		in.awaitRow(later)
		reports := in.reportMany("eve", []string{proven, claimed, old, later, "aaaaaaaaaaaaaaaaaaaaaaaa", "no_file_has_such_an_id-"})
		in.notClaimable("eve", reports...)
		in.belongs(old, "", "")
		in.belongs(later, "", "")
		owned(in)
	}))

	in.t.(*testing.T).Run("ForgedTickets", in.sub(func(in *installation) {
		good := sealedBy(in.t, attackKey, "ann", attackAccount)
		var ids []string
		for n, forged := range []string{
			"tu1.x.y", "tu1.ann", good[:len(good)-2] + "AA", good[:20], strings.ToUpper(good),
			sealedBy(in.t, "another-installation's-secret-key-1", "ann", attackAccount),
			sealedBy(in.t, attackKey, "ann", "another_account"),
			sealedBy(in.t, "another-installation's-secret-key-1", "ann", attackAccount)[:4] + good[4:12] + sealedBy(in.t, "another-installation's-secret-key-1", "ann", attackAccount)[12:],
		} {
			ids = append(ids, in.uploadV1("eve", map[string]string{"tags": "mine," + forged, "folder": "/forged"}, 10+n))
		}
		for _, id := range ids {
			r := in.awaitRow(id)
			if r.User != "" {
				in.t.Errorf("a forged ticket gave %s to %q", id, r.User)
			}
		}
		// The files are eve's own uploads, and claims own those.
		in.reportMany("eve", ids)
		in.settles(time.Minute)
		for _, id := range ids {
			in.belongs(id, "eve", "claimed")
		}
		owned(in)
	}))

	in.t.(*testing.T).Run("TheVictimsTicketOnTheAttackersFile", in.sub(func(in *installation) {
		id := in.uploadV1("eve", map[string]string{"tags": annsTicket, "folder": "/planted"}, 20)
		in.notClaimable("eve", in.report("eve", id))
		in.belongs(id, "ann", "proven")
		in.awaitFlag(id, "ticket_reused")
		both := in.uploadV1("eve", map[string]string{"tags": annsTicket + "," + ticketOf(in.t, in.grant("eve", map[string]any{"fileName": "x.png"})), "folder": "/planted"}, 21)
		in.notClaimable("eve", in.report("eve", both))
		in.belongs(both, "", "")
		in.awaitFlag(both, "ticket_conflict")
		owned(in)
	}))

	in.t.(*testing.T).Run("OverwriteAtTheVictimsPath", in.sub(func(in *installation) {
		evesTicket := ticketOf(in.t, in.grant("eve", map[string]any{"fileName": "x.png"}))
		for n, name := range []string{"proven.png", "claimed.png"} {
			fields := fixed("/victim", name)
			fields["tags"] = evesTicket
			if id := in.uploadV1("eve", fields, 30+n); id != proven && id != claimed {
				in.t.Fatalf("nothing was overwritten: %s", id)
			}
		}
		in.notClaimable("eve", in.reportMany("eve", []string{proven, claimed})...)
		owned(in)
		in.awaitFlag(proven, "ticket_conflict")
		in.awaitFlag(claimed, "ticket_conflict")
		in.awaitFlag(claimed, "claim_refused")

		fields := in.grant("eve", map[string]any{"folder": "/victim", "fileName": "proven.png", "useUniqueFileName": "false", "overwriteFile": "true"})
		if a := in.sendUpload("v2", fields, 32); a.status != http.StatusBadRequest {
			in.t.Errorf("an upload with a token of ours overwrote another's file: %d %s", a.status, a.body)
		}
		owned(in)
	}))

	in.t.(*testing.T).Run("DashboardCopyMoveAndEdit", in.sub(func(in *installation) {
		id := in.uploadV2("ann", map[string]any{"folder": "/dash", "fileName": "d.png", "useUniqueFileName": "false"}, 40)
		in.awaitRow(id)
		in.imagekit("POST", "/v1/folder", true, "application/json", strings.NewReader(`{"folderName":"copies","parentFolderPath":"/"}`))
		in.imagekit("POST", "/v1/files/copy", true, "application/json", strings.NewReader(`{"sourceFilePath":"/dash/d.png","destinationPath":"/copies"}`)).want(in.t, http.StatusNoContent)
		twin := in.onlyIn("/copies")
		in.notClaimable("eve", in.report("eve", twin))
		in.belongs(twin, "ann", "proven")
		in.awaitFlag(twin, "ticket_reused")

		in.imagekit("POST", "/v1/folder", true, "application/json", strings.NewReader(`{"folderName":"moved","parentFolderPath":"/"}`))
		in.imagekit("POST", "/v1/files/move", true, "application/json", strings.NewReader(`{"sourceFilePath":"/dash/d.png","destinationPath":"/moved"}`)).want(in.t, http.StatusNoContent)
		in.patch(id, map[string]any{"tags": []string{"somebody's"}})
		in.awaitFlag(id, "proof_missing")
		in.notClaimable("eve", in.report("eve", id))
		in.belongs(id, "ann", "proven")
		in.patch(id, map[string]any{"tags": []string{ticketOf(in.t, in.grant("eve", map[string]any{"fileName": "x.png"}))}})
		in.awaitFlag(id, "ticket_conflict")
		in.notClaimable("eve", in.report("eve", id))
		in.belongs(id, "ann", "proven")
	}))

	in.t.(*testing.T).Run("DeletedAndUploadedAgainAtTheSamePath", in.sub(func(in *installation) {
		first := in.uploadV1("ann", fixed("/again", "a.png"), 50)
		in.outcomeIs("ann", in.report("ann", first), "verified")
		in.delete(first)
		in.goneRow(first)
		second := in.uploadV1("eve", fixed("/again", "a.png"), 51)
		if second == first {
			in.t.Fatal("the path kept its fileId: this proves nothing")
		}
		in.outcomeIs("eve", in.report("eve", second), "verified")
		in.webhook("file.created", fmt.Sprintf(`{"fileId":%q,"updatedAt":"2099-01-01T00:00:00Z"}`, first)).want(in.t, http.StatusOK)
		in.notClaimable("ann", in.reportMany("ann", []string{first, second})...)
		in.belongs(second, "eve", "claimed")
		if _, there := in.rows()[first]; there {
			in.t.Error("the deleted file's row is back")
		}
	}))
	owned(in)
}

// onlyIn is the one file of a folder.
func (in *installation) onlyIn(folder string) (id string) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		var ids []string
		for file, r := range in.library() {
			if strings.HasPrefix(r.Path, folder+"/") {
				ids = append(ids, file)
			}
		}
		if len(ids) != 1 {
			return fmt.Errorf("%d files in %s, want 1", len(ids), folder)
		}
		id = ids[0]
		return nil
	})
	return id
}

// storedTicket is the ticket that travels with a file, as anybody may see it who sees
// the file's tags.
func (in *installation) storedTicket(fileID string) string {
	in.t.Helper()
	tags, _ := in.imagekit("GET", "/v1/files/"+fileID+"/details", true, "", nil).want(in.t, http.StatusOK).get(in.t, "tags").([]any)
	for _, tag := range tags {
		if s, _ := tag.(string); strings.HasPrefix(s, "tu1.") {
			return s
		}
	}
	in.t.Fatalf("no ticket among the tags %v", tags)
	return ""
}

// attackUploadTokens: a token permits one upload with exactly what it signs.
func attackUploadTokens(in *installation) {
	fields := func() map[string]string {
		return in.grant("eve", map[string]any{"fileName": "t.png", "folder": "/tokens", "tags": "a"})
	}
	refused := func(what string, version string, f map[string]string) {
		in.t.Helper()
		before := len(in.library())
		if a := in.sendUpload(version, f, 60); a.status/100 == 2 || len(in.library()) != before {
			in.t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	used := fields()
	in.sendUpload("v2", used, 60).want(in.t, http.StatusOK)
	refused("a token used twice", "v2", used)
	f := fields()
	f["folder"] = "/victim"
	refused("a folder changed after signing", "v2", f)
	f = fields()
	f["tags"] = sealedBy(in.t, attackKey, "ann", attackAccount)
	refused("tags changed after signing", "v2", f)
	f = fields()
	f["isPrivateFile"] = "true"
	refused("a parameter added after signing", "v2", f)
	f = fields()
	delete(f, "tags")
	refused("a parameter left out", "v2", f)
	f = fields()
	f["overwriteFile"] = "true"
	refused("overwriteFile turned on", "v2", f)
	f = fields()
	f["token"] = in.token("eve")
	refused("a sign-in's token in its place", "v2", f)
	f = fields()
	parts := strings.Split(f["token"], ".")
	f["token"] = parts[0] + "." + parts[1] + "."
	refused("a token without its signature", "v2", f)
	refused("a V2 token for a V1 upload", "v1", fields())
	for what, body := range map[string]string{
		"a token asked for as a field":       `{"uploadPayload":{"token":"x"}}`,
		"another's public key":               `{"uploadPayload":{},"publicKey":"public_evil"}`,
		"a lifetime of a day":                `{"uploadPayload":{},"expire":86400}`,
		"a ticket asked for":                 `{"uploadPayload":{"tags":"tu1.a.b"}}`,
		"claims asked for":                   `{"uploadPayload":{"exp":9999999999}}`,
		"a field twice":                      `{"uploadPayload":{"tags":"a","tags":"tu1.a.b"}}`,
		"a field in another case":            `{"uploadPayload":{"OverwriteFile":"true"}}`,
		"a ticket between blanks":            `{"uploadPayload":{"tags":"a, tu1.a.b ,c"}}`,
		"a ticket behind an encoded comma":   `{"uploadPayload":{"tags":"a%2Ctu1.a.b"}}`,
		"more tags than the ticket leaves":   `{"uploadPayload":{"tags":"` + strings.Repeat("t", 450) + `"}}`,
		"a payload that is a list":           `{"uploadPayload":[["tags","a"]]}`,
		"a payload deeper than anybody asks": `{"uploadPayload":{"customMetadata":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100) + "}}",
	} {
		if a := in.call("eve", "POST", "/generate-upload-token", []byte(body)); a.status != http.StatusBadRequest {
			in.t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
}

// attackOrders: ann's upload by ticket, and her claim before eve's, win in whatever
// order the webhook and the reports of both come; nobody's news changes it afterwards.
func attackOrders(in *installation) {
	in.webhooks(false)
	defer in.webhooks(true)
	seed := uint64(time.Now().UnixNano())
	in.t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	news := map[string]func(id string){
		"webhook": func(id string) { in.webhook("file.created", fmt.Sprintf(`{"fileId":%q}`, id)) },
		"update": func(id string) {
			in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q,"updatedAt":"2026-01-01T00:00:00Z"}`, id))
		},
		"ann": func(id string) { in.report("ann", id) },
		"eve": func(id string) { in.report("eve", id) },
	}
	type race struct {
		order             []string
		byTicket, byClaim string
	}
	var races []race
	for n, order := range permutations([]string{"webhook", "update", "ann", "eve"}) {
		races = append(races, race{order, in.uploadV2("ann", map[string]any{"folder": "/orders"}, 70+n), in.uploadV1("ann", map[string]string{"folder": "/orders"}, 170+n)})
	}
	for step := range 4 {
		for _, i := range random.Perm(len(races)) {
			news[races[i].order[step]](races[i].byTicket)
			news[races[i].order[step]](races[i].byClaim)
		}
		if step == 0 || random.IntN(2) == 0 { // what came so far is settled before the rest comes
			in.settles(time.Minute)
		}
	}
	in.settles(time.Minute)
	for _, r := range races {
		in.belongs(r.byTicket, "ann", "proven")
		first := "ann"
		if slices.Index(r.order, "eve") < slices.Index(r.order, "ann") {
			first = "eve" // V1 binds nothing: whoever says so first
		}
		in.belongs(r.byClaim, first, "claimed")
	}
}

func permutations(names []string) (all [][]string) {
	if len(names) <= 1 {
		return [][]string{slices.Clone(names)}
	}
	for i := range names {
		rest := slices.Delete(slices.Clone(names), i, i+1)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{names[i]}, p...))
		}
	}
	return all
}

// attackSubjects: no two names are one user, and no name is somebody else's.
func attackSubjects(in *installation) {
	id := in.uploadV2("ann", map[string]any{"folder": "/subjects"}, 80)
	in.awaitRow(id)
	own, reports := in.report("ann", id), map[string]string{}
	for _, sub := range []string{"Ann", "ann ", " ann", "аnn" /* Cyrillic */, "ann\u200b", "ańn", "an\u0144n", "ann%20", "ann'--", "_ss:unowned", "*", "%", "ann,eve"} {
		reports[sub] = in.report(sub, id)
		in.call(sub, "GET", "/reports/"+own, nil).want(in.t, http.StatusNotFound)
	}
	for sub, report := range reports {
		in.notClaimable(sub, report)
	}
	in.belongs(id, "ann", "proven")
	for _, sub := range []string{"", "ann\x00", "\x00", "ann\n", "\x1b[31mann", strings.Repeat("a", 256)} {
		if a := in.callAs(sub, "POST", "/save-metadata", map[string]string{"fileId": id}); a.status != http.StatusUnauthorized {
			in.t.Errorf("the subject %q is answered %d %s", sub, a.status, a.body)
		}
	}
	if status := in.bare("POST", "/save-metadata", "Authorization: Bearer "+in.token(strings.Repeat("a", 1<<20))); status != 431 {
		in.t.Errorf("a subject of a megabyte is answered %d", status)
	}
	// A name that can own is told apart to the last byte, and back.
	for _, sub := range []string{"аnn", "auth0|507f", "a b/c?d#e", "ünï\u2028cödé", strings.Repeat("x", 255)} {
		mine := in.uploadV2(sub, map[string]any{"folder": "/subjects"}, 81)
		in.outcomeIs(sub, in.report(sub, mine), "verified")
		in.belongs(mine, sub, "proven")
	}
}

// callAs is call for a subject that may be empty.
func (in *installation) callAs(sub, method, path string, body any) answer {
	in.t.Helper()
	r, err := http.NewRequest(method, in.url()+path, bytes.NewReader(asJSON(in.t, body)))
	if err != nil {
		in.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+in.token(sub))
	return in.send(r)
}

// bare sends a request with these header lines and nothing else, and returns the
// status; 0 when the connection was closed without one. It is for what no document of
// ours describes, since net/http answers it by itself.
func (in *installation) bare(method, path string, lines ...string) (status int) {
	in.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(in.public[0], "http://"))
	if err != nil {
		in.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	// The other side may answer, and close, before it has all of it.
	_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", method, path, strings.Join(lines, "\r\n"))
	line, _ := bufio.NewReader(c).ReadString('\n')
	_, _ = fmt.Sscanf(line, "HTTP/1.1 %d", &status)
	return status
}

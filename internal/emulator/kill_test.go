package emulator

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// child is what a re-executed test binary does: run an emulator until it is killed.
func child(dir string) int {
	e, err := New(Config{
		Dir: dir, PublicKey: testPublic, PrivateKey: testPrivate, WebhookSecret: testSecret,
		WebhookURL: os.Getenv("EMULATOR_TEST_WEBHOOKS"), Addr: os.Getenv("EMULATOR_TEST_ADDR"),
	})
	if err == nil {
		err = e.Listen()
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println(e.URL())
	if err := e.Run(context.Background()); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// process is an emulator in a process of its own.
type process struct {
	*account
	cmd *exec.Cmd
}

func spawn(t *testing.T, dir, webhooks string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "EMULATOR_TEST_CHILD="+dir, "EMULATOR_TEST_WEBHOOKS="+webhooks)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	url := strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(url, "http") {
		t.Fatalf("child said %q (%v)", line, err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	e := &Emulator{Config: Config{Dir: dir, AccountID: "demo_id"}}
	e.origin.Store(&url)
	p := &process{account: &account{Emulator: e, t: t, http: &http.Client{Transport: transport, Timeout: time.Minute}}, cmd: cmd}
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.http.CloseIdleConnections()
}

func TestKill9(t *testing.T) {
	refusing := true
	var mu sync.Mutex
	in := newInbox(t, func(int) int {
		mu.Lock()
		defer mu.Unlock()
		return map[bool]int{true: 503, false: 200}[refusing]
	})
	dir := t.TempDir()
	p := spawn(t, dir, in.URL)
	p.settings1(`{"rateLimit":{"perSecond":0},"writeRateLimit":{"perSecond":0},"webhooks":{"retrySchedule":["1h","1h"]}}`)
	p.must(200, "POST", "/_emulator/files/generate", `{"count":5000,"folder":"/bulk"}`)
	p.must(201, "POST", "/v1/customMetadataFields", `{"name":"price","label":"Price","schema":{"type":"Number"}}`)
	token := v1Fields(newUUID(), time.Now().Unix()+600)
	if r := p.post("v1", false, token, plainPNG(3, 3)); r.status != 200 {
		t.Fatalf("upload: %s", r.body)
	}
	doomed := p.put("doomed.png").text("fileId")
	p.must(204, "DELETE", "/v1/files/"+doomed, "")
	p.fault(`{"path":"/v1/accounts/usage","status":418,"times":3}`)
	p.must(418, "GET", "/v1/accounts/usage", "")
	in.wait(t, 3) // file.created ×2 and file.deleted, all refused

	answered := uploadUntilKilled(t, p)
	t.Logf("%d uploads were answered before the kill", len(answered))
	if len(answered) == 0 {
		t.Fatal("nothing was answered before the kill")
	}

	p = spawn(t, dir, in.URL)
	for name, id := range answered {
		if d := p.details(id); d["name"] != name {
			t.Errorf("%s is %v", id, d)
		}
		req, _ := http.NewRequest(http.MethodGet, p.Endpoint()+"/k/"+name, nil)
		if r := p.send(req); r.status != 200 || string(r.body) != string(plainPNG(7, 5)) {
			t.Errorf("%s delivers %d, %d bytes", name, r.status, len(r.body))
		}
	}
	p.must(404, "GET", "/v1/files/"+doomed+"/details", "")
	if n := len(p.names(search(`type = "file" AND path = "/bulk"`, "&skip=4500"))); n != 500 {
		t.Errorf("%d of the last 500 generated files", n)
	}
	if r := p.post("v1", false, token, plainPNG(3, 3)); r.text("message") != sayUsedToken {
		t.Errorf("a used token: %d %s", r.status, r.body)
	}
	if f := p.must(200, "GET", "/_emulator/faults", "").list(); len(f) != 1 || f[0]["fired"] != 1.0 {
		t.Errorf("faults: %v", f)
	}
	if l := p.must(200, "GET", "/v1/customMetadataFields", "").list(); len(l) != 1 {
		t.Errorf("fields: %v", l)
	}
	s := p.must(200, "GET", "/_emulator/settings", "").object()
	if fmt.Sprint(s["rateLimit"]) != "map[burst:100 perSecond:0]" {
		t.Errorf("settings: %v", s["rateLimit"])
	}

	// Every webhook that had not arrived is still to be sent: make all of them due.
	pending := p.webhookStats()["pending"].(float64)
	if least := float64(3 + len(answered)); pending < least {
		t.Errorf("%v webhooks pending, want at least %v", pending, least)
	}
	p.kill()
	hurry(t, dir)
	mu.Lock()
	refusing = false
	mu.Unlock()
	p = spawn(t, dir, in.URL)
	p.settled()
	told := map[string]bool{}
	for _, d := range in.wait(t, 1) {
		told[d.kind()+" "+d.fileID()] = true
	}
	for _, id := range answered {
		if !told["file.created "+id] {
			t.Errorf("no webhook for %s", id)
		}
	}
	if !told["file.deleted "+doomed] {
		t.Error("no webhook for the deletion")
	}
}

// uploadUntilKilled uploads from four sides, kills the emulator in the middle and
// returns what was answered 200: name → fileId.
func uploadUntilKilled(t *testing.T, p *process) map[string]string {
	t.Helper()
	var mu sync.Mutex
	answered := map[string]string{}
	enough := make(chan struct{})
	var once sync.Once
	var all sync.WaitGroup
	for side := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d.png", side, i)
				body, kind := multipartBody(t, map[string]string{"fileName": name, "useUniqueFileName": "false", "folder": "k"}, plainPNG(7, 5))
				req, _ := http.NewRequest(http.MethodPost, p.URL()+"/api/v1/files/upload", body)
				req.Header.Set("Content-Type", kind)
				req.SetBasicAuth(testPrivate, "")
				resp, err := p.http.Do(req)
				if err != nil {
					return
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					return
				}
				mu.Lock()
				answered[name] = reply{body: b}.text("fileId")
				if len(answered) > 100 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
	}
	p.kill()
	all.Wait()
	return answered
}

// hurry makes every pending webhook in a closed emulator's directory due now.
func hurry(t *testing.T, dir string) {
	t.Helper()
	e, err := New(Config{Dir: dir, PublicKey: testPublic, PrivateKey: testPrivate})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.change(func() (changes []change, a answer) {
		for _, h := range e.lib.hooks {
			due := *h
			due.Due = time.Now()
			changes = append(changes, change{Hook: &due})
		}
		return changes, a
	})
}

// TestTornJournal: the last line may be torn anywhere, no other may.
func TestTornJournal(t *testing.T) {
	a := quiet(t)
	first, second := a.put("a.png").text("fileId"), a.put("b.png").text("fileId")
	path := filepath.Join(a.Dir, "journal.jsonl")
	a.stop()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.SplitAfterSeq(strings.TrimSuffix(string(whole), "\n"), "\n"))
	last := len(whole) - len(lines[len(lines)-1]) - 1
	for _, cut := range []int{last + 1, last + 30, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		b := start(t, Config{Dir: a.Dir})
		b.must(200, "GET", "/v1/files/"+first+"/details", "")
		b.must(404, "GET", "/v1/files/"+second+"/details", "")
		b.put("c.png")
		b.stop()
		c := start(t, Config{Dir: a.Dir})
		if got := c.names(""); !slices.Equal(got, []string{"a.png", "c.png"}) {
			t.Errorf("cut at %d: %q", cut, got)
		}
		c.stop()
	}
	damaged := slices.Clone(whole)
	damaged[0] = 'x'
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := New(Config{Dir: a.Dir, PublicKey: "p", PrivateKey: "q"}); err == nil {
		_ = e.Close()
		t.Error("a damaged journal was opened")
	} else if !strings.Contains(err.Error(), "line 1 of the journal is damaged") {
		t.Error(err)
	}
}

// TestRewrite: a rewritten journal says the same in fewer lines.
func TestRewrite(t *testing.T) {
	a := quiet(t)
	in := newInbox(t, func(int) int { return 500 })
	a.settings1(`{"webhooks":{"url":"` + in.URL + `","retrySchedule":["1h"]}}`)
	a.must(200, "POST", "/_emulator/files/generate", `{"count":10,"folder":"/g"}`)
	oldest := a.must(200, "GET", "/v1/files?limit=1", "").list()[0]["fileId"]
	a.must(204, "DELETE", "/v1/files/"+fmt.Sprint(oldest), "")
	id := a.put("a.png").text("fileId")
	for range 50 {
		a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"tags":["x"]}`)
	}
	a.fault(`{"path":"/x","status":500}`)
	show := func(a *account) string {
		return string(a.must(200, "GET", "/v1/files/"+id+"/details", "").body) + fmt.Sprint(a.names(""), a.names("type=folder"), a.webhookStats()["pending"]) +
			string(a.must(200, "GET", "/_emulator/settings", "").body) + string(a.must(200, "GET", "/_emulator/faults", "").body)
	}
	eventually(t, "all tried once", func() bool { return a.webhookStats()["retried"] == 52.0 })
	a.settings1(`{"webhooks":{"enabled":false}}`) // what waits is due in an hour
	before, size := show(a), a.disk.size
	a.mu.Lock()
	err := a.disk.rewrite(a.lib.snapshot())
	a.mu.Unlock()
	if err != nil || a.disk.size >= size {
		t.Fatalf("%d bytes became %d (%v)", size, a.disk.size, err)
	}
	a.put("after.png")
	a.must(204, "DELETE", "/v1/files/"+fmt.Sprint(a.must(200, "GET", "/v1/files?name=after.png", "").list()[0]["fileId"]), "")
	a.stop()
	b := start(t, Config{Dir: a.Dir, Addr: a.listener.Addr().String()})
	after := show(b)
	if after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	a := quiet(t)
	if e, err := New(Config{Dir: a.Dir, PublicKey: "p", PrivateKey: "q"}); err == nil {
		_ = e.Close()
		t.Error("a directory in use was opened again")
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, c := range []Config{{}, {Dir: t.TempDir()}, {Dir: t.TempDir(), PublicKey: "p", PrivateKey: "q", AccountID: "a/b"}} {
		if e, err := New(c); err == nil {
			_ = e.Close()
			t.Errorf("%+v was accepted", c)
		}
	}
}

package contract

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const document = `{"openapi":"3.0.3","info":{"title":"t","version":"1"},"paths":{"/things":{"post":{
  "requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["id"]}}}},
  "responses":{
    "200":{"description":"ok","content":{"application/json":{"schema":{"type":"object","additionalProperties":false,"required":["success"],"properties":{"success":{"type":"boolean"}}}}}},
    "400":{"description":"no","content":{"application/json":{"schema":{"type":"object","required":["code"]}}}}
  }}}}}`

func TestRecorder(t *testing.T) {
	d, err := Load([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		answer             string
		wrong              bool
	}{
		"Agrees":                  {"POST", "/things", `{"id":1}`, 200, `{"success":true}`, false},
		"WrongRequestRefused":     {"POST", "/things", `{}`, 400, `{"code":"x"}`, false},
		"UnknownAddressRefused":   {"GET", "/other", "", 404, `{}`, false},
		"UnknownMethodRefused":    {"PUT", "/things", "", 405, `{}`, false},
		"WrongRequestAnswered":    {"POST", "/things", `{}`, 200, `{"success":true}`, true},
		"FieldNotDescribed":       {"POST", "/things", `{"id":1}`, 200, `{"success":true,"more":1}`, true},
		"FieldMissing":            {"POST", "/things", `{"id":1}`, 400, `{}`, true},
		"StatusNotDescribed":      {"POST", "/things", `{"id":1}`, 418, `{}`, true},
		"UnknownAddressAnswered":  {"GET", "/other", "", 200, `{}`, true},
		"AnswerIsNotWhatItClaims": {"POST", "/things", `{"id":1}`, 200, `<html>`, true},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sent, _ := io.ReadAll(r.Body); string(sent) != c.body {
					t.Errorf("the server got %q", sent)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			}))
			defer server.Close()
			recorder := &Recorder{Document: d, Next: server.Client().Transport}
			r, _ := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			res, err := recorder.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(res.Body); string(got) != c.answer {
				t.Fatalf("the client got %q", got)
			}
			if found := len(recorder.Errors()) > 0; found != c.wrong {
				t.Fatal(recorder.Errors())
			}
		})
	}
}

func TestLoadRefusesADocumentThatIsInvalid(t *testing.T) {
	if _, err := Load([]byte(`{"openapi":"3.0.3","paths":{}}`)); err == nil {
		t.Fatal("no error")
	}
}

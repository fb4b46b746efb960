package service_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// sdk is ImageKit's official Node SDK, as published, told nothing but the address and
// the key.
type sdk struct {
	*installation
	script *script
}

func startSDK(in *installation) *sdk {
	in.t.Helper()
	env := map[string]string{}
	for _, name := range []string{"IMAGE_KIT_BASE_URL", "IMAGEKIT_PRIVATE_KEY"} {
		env[name] = in.env[name]
	}
	return &sdk{in, startScript(in.t, env, true, "sdk.mjs")}
}

// calls is one call of the SDK that has to succeed, by its name below the client.
func (s *sdk) calls(name string, args ...any) (value map[string]any) {
	s.t.Helper()
	var a struct {
		Value json.RawMessage
		Error string
	}
	s.script.ask(s.t, map[string]any{"call": name, "args": args}, &a)
	if a.Error != "" {
		s.t.Fatalf("%s: %s", name, a.Error)
	}
	if err := json.Unmarshal(a.Value, &value); err != nil {
		s.t.Fatalf("%s answered %s: %v", name, a.Value, err)
	}
	return value
}

// uploads a picture and returns its fileId.
func (s *sdk) uploads(n int, params map[string]any) string {
	s.t.Helper()
	params["bytes"] = base64.StdEncoding.EncodeToString(picture(n))
	id, _ := s.calls("files.upload", params)["fileId"].(string)
	if id == "" {
		s.t.Fatal("the SDK's upload answered no fileId")
	}
	return id
}

// holds waits until a file's row is as ok says and the whole table equals the library.
func (s *sdk) holds(fileID, what string, ok func(row) bool) {
	s.t.Helper()
	testenv.Eventually(s.t, time.Minute, func() error {
		if r, there := s.rows()[fileID]; !there || !ok(r) {
			return fmt.Errorf("row %+v is not %s", r, what)
		}
		return nil
	})
	s.converges(time.Minute)
}

// lines is how many lines of the ledger tell of one kind of event on a file.
func (s *sdk) lines(fileID, kind string) int {
	s.t.Helper()
	return s.count("SELECT count(*) FROM trueup.ledger WHERE file_id=$1 AND kind=$2", fileID, kind)
}

// sub runs f as a subtest, with whatever it asks reporting to it.
func (s *sdk) sub(f func(*sdk)) func(*testing.T) {
	return s.installation.sub(func(*installation) { f(s) })
}

// TestOfficialSDK: what is done with ImageKit's own SDK reaches the table, by webhooks
// alone, by reports alone, by both. The oracle compares every column with what ImageKit
// says, by plain HTTP; the SDK's own answers are not trusted for that.
func TestOfficialSDK(t *testing.T) {
	t.Parallel()
	s := startSDK(startDev(t, nil))
	var id string

	t.Run("UploadGetsItsRowByTheWebhookAlone", s.sub(func(s *sdk) {
		id = s.uploads(1, map[string]any{"fileName": "first.png", "folder": "/sdk", "tags": []string{"one", "two"}, "useUniqueFileName": false})
		s.holds(id, "/sdk/first.png of nobody", func(r row) bool {
			return r.Path == "/sdk/first.png" && slices.Equal(r.Tags, []string{"one", "two"}) && r.User == ""
		})
		if n := s.lines(id, "report"); n != 0 {
			s.t.Errorf("%d reports in the ledger, want none: this proves nothing", n)
		}
	}))

	t.Run("UpdateFollows", s.sub(func(s *sdk) {
		s.calls("customMetadataFields.create", map[string]any{"name": "price", "label": "Price", "schema": map[string]any{"type": "Number"}})
		s.calls("files.update", id, map[string]any{"tags": []string{"three"}, "customMetadata": map[string]any{"price": 5}})
		s.holds(id, "tagged three, price 5", func(r row) bool {
			return slices.Equal(r.Tags, []string{"three"}) && r.Metadata["price"] == 5.0
		})
		s.calls("files.update", id, map[string]any{"tags": nil})
		s.holds(id, "without tags", func(r row) bool { return len(r.Tags) == 0 && r.Metadata["price"] == 5.0 })
	}))

	t.Run("RenameMoveAndCopyFollow", s.sub(func(s *sdk) {
		s.calls("files.rename", map[string]any{"filePath": "/sdk/first.png", "newFileName": "second.png"})
		s.holds(id, "/sdk/second.png", func(r row) bool { return r.Path == "/sdk/second.png" && r.Name == "second.png" })
		s.calls("folders.create", map[string]any{"folderName": "moved", "parentFolderPath": "/"})
		s.calls("files.move", map[string]any{"sourceFilePath": "/sdk/second.png", "destinationPath": "/moved"})
		s.holds(id, "/moved/second.png", func(r row) bool { return r.Path == "/moved/second.png" })
		s.calls("folders.create", map[string]any{"folderName": "copied", "parentFolderPath": "/"})
		s.calls("files.copy", map[string]any{"sourceFilePath": "/moved/second.png", "destinationPath": "/copied"})
		s.converges(time.Minute)
		if n := s.count("SELECT count(*) FROM public.imagekit_files WHERE file_path IN ('/moved/second.png','/copied/second.png') AND size_bytes > 0"); n != 2 {
			s.t.Errorf("%d rows for the file and its copy, want 2", n)
		}
	}))

	t.Run("ANewVersionFollows", s.sub(func(s *sdk) {
		before := s.rows()[id]
		if again := s.uploads(2, map[string]any{"fileName": "second.png", "folder": "/moved", "useUniqueFileName": false}); again != id {
			s.t.Fatalf("overwriting gave %s, want %s", again, id)
		}
		s.holds(id, "the second version", func(r row) bool { return r.VersionID != before.VersionID && r.Width == before.Width+1 })
	}))

	t.Run("DeleteRemovesTheRowAndLeavesATombstone", s.sub(func(s *sdk) {
		s.calls("files.delete", id)
		s.goneRow(id)
		s.converges(time.Minute)
		if n := s.count("SELECT count(*) FROM trueup.file_state WHERE file_id=$1 AND gone_at IS NOT NULL", id); n != 1 {
			s.t.Errorf("%d tombstones, want 1", n)
		}
		if why := strings.Join(s.story(id), "\n"); !strings.Contains(why, "file.deleted") {
			s.t.Errorf("why does not tell of the deletion:\n%s", why)
		}
	}))

	t.Run("BothGiveOneRowAndOneStory", s.sub(func(s *sdk) {
		id := s.uploads(3, map[string]any{"fileName": "both.png"})
		s.outcomeIs("ann", s.report("ann", id), "verified")
		testenv.Eventually(s.t, time.Minute, func() error {
			if s.lines(id, "file.created") == 0 {
				return errors.New("no line for the webhook")
			}
			return nil
		})
		s.settles(time.Minute)
		s.converges(time.Minute)
		s.holds(id, "ann's", func(r row) bool { return r.User == "ann" })
		if r, w := s.lines(id, "report"), s.lines(id, "file.created"); r != 1 || w != 1 {
			s.t.Errorf("%d lines for the report and %d for the webhook, want 1 and 1", r, w)
		}
		why := strings.Join(s.story(id), "\n")
		for _, part := range []string{"reported the file", "webhook file.created came"} {
			if strings.Count(why, part) != 1 {
				s.t.Errorf("why says %q %d times, want once:\n%s", part, strings.Count(why, part), why)
			}
		}
	}))

	t.Run("WithWebhooksOffTheReportSuffices", s.sub(func(s *sdk) {
		s.settles(time.Minute)
		s.webhooks(false)
		defer s.webhooks(true)
		sent := s.stats().Webhooks.Sent
		id := s.uploads(4, map[string]any{"fileName": "quiet.png", "tags": []string{"quiet"}})
		s.outcomeIs("ann", s.report("ann", id), "verified")
		s.holds(id, "ann's", func(r row) bool { return r.User == "ann" && slices.Equal(r.Tags, []string{"quiet"}) })
		if n := s.lines(id, "file.created"); n != 0 || s.stats().Webhooks.Sent != sent {
			s.t.Errorf("a webhook was sent although they are off: this proves nothing")
		}
		s.calls("files.delete", id)
		s.report("ann", id)
		s.goneRow(id)
		s.converges(time.Minute)
	}))
	s.settles(time.Minute)
	s.identity()
}

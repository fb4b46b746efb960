package config

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestDevEnv(t *testing.T) {
	values := map[string]string{
		"DATABASE_URL":     "postgres://trueup:pw@127.0.0.1:54321/trueup?sslmode=disable",
		"TRUEUP_URL":       "http://127.0.0.1:3000",
		"TRUEUP_DEV_TOKEN": "eyJ.a-b_c.d",
		"A":                "two words",
		"B":                "it's $HOME `id` \"x\" \\ # ~ *",
		"C":                "",
	}
	dir := t.TempDir()
	if err := WriteDevEnv(dir, values); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, DevEnvName)

	t.Run("IsReadBack", func(t *testing.T) {
		got, err := ReadDevEnv(dir)
		if err != nil || !maps.Equal(got, values) {
			t.Errorf("%v %v", got, err)
		}
	})
	t.Run("IsForItsOwnerOnly", func(t *testing.T) {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", st, err)
		}
	})
	t.Run("IsTakenOverByAShell", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", `. "$1"; printf '%s|' "$A" "$B" "$C" "$DATABASE_URL"`, "sh", path).CombinedOutput()
		want := values["A"] + "|" + values["B"] + "||" + values["DATABASE_URL"] + "|"
		if err != nil || string(out) != want {
			t.Errorf("%v: %s, want %s", err, out, want)
		}
	})
	t.Run("LeavesTheOldOneWhenRefused", func(t *testing.T) {
		for _, bad := range []map[string]string{{"A": "x\ny"}, {"A B": "x"}, {"A": "\x00"}} {
			if err := WriteDevEnv(dir, bad); err == nil {
				t.Errorf("%q accepted", bad)
			}
		}
		if got, err := ReadDevEnv(dir); err != nil || !maps.Equal(got, values) {
			t.Errorf("%v %v", got, err)
		}
		if all, _ := os.ReadDir(dir); len(all) != 1 {
			t.Errorf("left behind: %v", all)
		}
	})
	t.Run("IsRemovedOnceAndAgain", func(t *testing.T) {
		for range 2 {
			if err := RemoveDevEnv(dir); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Error(err)
		}
	})
}

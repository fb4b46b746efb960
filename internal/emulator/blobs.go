package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// blobs keeps the bytes of uploads, each under the SHA-256 of its content, so that
// storing twice is storing once and a half-written one is never found.
type blobs struct {
	dir  string
	kept *sync.Map // what is stored, instead of in dir; nil: in dir
}

func (b blobs) path(sum string) string { return filepath.Join(b.dir, sum[:2], sum) }

// store returns when content is on disk; its name is what to keep.
func (b blobs) store(content []byte) (string, error) {
	hash := sha256.Sum256(content)
	sum := hex.EncodeToString(hash[:])
	if b.kept != nil {
		b.kept.Store(sum, content)
		return sum, nil
	}
	if _, err := os.Stat(b.path(sum)); err == nil {
		return sum, nil
	}
	if err := os.MkdirAll(filepath.Dir(b.path(sum)), 0o700); err != nil {
		return "", fmt.Errorf("store bytes: %w", err)
	}
	f, err := os.CreateTemp(b.dir, "incoming-*")
	if err != nil {
		return "", fmt.Errorf("store bytes: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), b.path(sum))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", fmt.Errorf("store bytes: %w", err)
	}
	return sum, nil
}

func (b blobs) open(sum string) (io.ReadSeekCloser, error) {
	if b.kept == nil {
		return os.Open(b.path(sum))
	}
	content, found := b.kept.Load(sum)
	if !found {
		return nil, fs.ErrNotExist
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(content.([]byte)), io.NopCloser(nil)}, nil
}

// sweep removes what no version of any file refers to: the bytes of deleted files
// and of uploads that were cut short. It runs at start, when nothing is coming in.
func (b blobs) sweep(used map[string]bool) error {
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name := d.Name(); !used[name] || strings.HasPrefix(name, "incoming-") {
			return os.Remove(path)
		}
		return nil
	})
}

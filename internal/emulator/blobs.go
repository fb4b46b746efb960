package emulator

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// blobs keeps the bytes of uploads, each under the SHA-256 of its content, so that
// storing twice is storing once and a half-written one is never found.
type blobs struct{ dir string }

func (b blobs) path(sum string) string { return filepath.Join(b.dir, sum[:2], sum) }

// store returns when content is on disk; its name is what to keep.
func (b blobs) store(content []byte) (string, error) {
	hash := sha256.Sum256(content)
	sum := hex.EncodeToString(hash[:])
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

func (b blobs) open(sum string) (*os.File, error) { return os.Open(b.path(sum)) }

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

package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"unicode"
)

// subject is where a template wants the user's own folder.
const subject = "{sub}"

func checkTemplate(template string) error {
	if template == "" {
		return nil
	}
	path := strings.ReplaceAll(template, subject, "x")
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{}") || !safePath(path) {
		return errors.New(`grant: the folder template is an absolute path such as "/u/{sub}"`)
	}
	return nil
}

// keepInFolder puts an upload under the user's folder. A client may name folders
// below it, relative to it or in full; it gets out of it in no way.
func (g *Granter) keepInFolder(user string, upload *Fields) error {
	if g.Folder == "" {
		return nil
	}
	if name := upload.get("fileName"); strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, odd) || dotStep(name) {
		return refuse(CodeBadFileName, "The fileName is no path and all of it prints; use folder.")
	}
	base := strings.ReplaceAll(g.Folder, subject, pathOf(user))
	asked := upload.get("folder")
	if !safePath(asked) {
		return refuse(CodeBadFolder, "The folder holds steps or characters that are not allowed.")
	}
	asked = strings.Trim(asked, "/")
	switch below := strings.TrimPrefix(base, "/"); {
	case asked == "", asked == below:
		upload.set("folder", base)
	case strings.HasPrefix(asked, below+"/"):
		upload.set("folder", "/"+asked)
	default:
		upload.set("folder", base+"/"+asked)
	}
	return nil
}

// safePath refuses whatever could be read as another path than it looks: dot steps,
// backslashes, escapes, empty steps and characters that do not print.
func safePath(path string) bool {
	if strings.ContainsAny(path, `\%`) || strings.Contains(path, "//") || strings.ContainsFunc(path, odd) {
		return false
	}
	for step := range strings.SplitSeq(path, "/") {
		if dotStep(step) {
			return false
		}
	}
	return true
}

// dotStep reports whether a step of a path is dots and blanks alone: ".", "..", and
// what somebody may trim to one of them.
func dotStep(step string) bool { return step != "" && strings.Trim(step, ". ") == "" }

func odd(r rune) bool { return !unicode.IsPrint(r) }

var (
	pathSafe = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	digested = regexp.MustCompile(`^sub-[0-9a-f]{32}$`)
)

// pathOf is the name of a user's folder: the sub itself where that is safe, else a
// digest of it, so that no two users share a folder because characters were replaced.
func pathOf(user string) string {
	if pathSafe.MatchString(user) && !digested.MatchString(user) {
		return user
	}
	sum := sha256.Sum256([]byte(user))
	return "sub-" + hex.EncodeToString(sum[:16])
}

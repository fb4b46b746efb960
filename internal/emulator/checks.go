package emulator

import (
	"fmt"
	"net/http"
	"strings"
)

// checkKinds are the fields that the checks of an upload may name.
var checkKinds = map[string]kind{
	"file.size": kindSize, "file.mime": kindText, "file.name": kindText, "file.extension": kindText,
	"file.width": kindNumber, "file.height": kindNumber, "mediaMetadata.width": kindNumber, "mediaMetadata.height": kindNumber,
	"request.folder": kindPath, "request.fileName": kindText, "request.tags": kindWords,
	"request.isPrivateFile": kindFlag, "request.useUniqueFileName": kindFlag, "request.overwriteFile": kindFlag,
}

// runChecks judges an upload by its own checks field.
func (e *Emulator) runChecks(o *options, c *content) (answer, bool) {
	if o.checks == "" {
		return answer{}, false
	}
	x, err := parseQuery(o.checks, func(cl *clause) error {
		k, known := checkKinds[cl.field]
		if !known {
			return fmt.Errorf("there is no field %s", cl.field)
		}
		return cl.settle(k, e.Now())
	})
	if err != nil {
		return refuse(http.StatusBadRequest, sayChecksSyntax), true
	}
	if !x.holds(func(field string) value { return checkValue(o, c, field) }) {
		return refuse(http.StatusBadRequest, sayChecksFailed), true
	}
	return answer{}, false
}

func checkValue(o *options, c *content, field string) value {
	switch field {
	case "file.size":
		return numberValue(float64(len(c.bytes)))
	case "file.mime":
		return textValue(c.mime)
	case "file.name", "request.fileName":
		return textValue(o.name)
	case "file.extension":
		return textValue(o.name[strings.LastIndexByte(o.name, '.')+1:])
	case "file.width", "mediaMetadata.width":
		return value{has: c.width > 0, number: float64(c.width)}
	case "file.height", "mediaMetadata.height":
		return value{has: c.height > 0, number: float64(c.height)}
	case "request.folder":
		return textValue(o.folder)
	case "request.tags":
		return wordsValue(o.tags)
	case "request.isPrivateFile":
		return flagValue(o.private)
	case "request.useUniqueFileName":
		return flagValue(o.unique)
	}
	return flagValue(o.overwrite)
}

// formatOf is the name that searches and metadata give a type.
func formatOf(mime, name string) string {
	switch mime {
	case "image/jpeg":
		return "jpg"
	case "image/svg+xml":
		return "svg"
	case "image/png", "image/webp", "image/gif", "image/avif", "application/pdf", "video/mp4", "video/webm":
		return mime[strings.IndexByte(mime, '/')+1:]
	}
	return strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
}

package grant

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/ticket"
)

// maxTags is how many characters of tags ImageKit keeps, commas included.
const maxTags = 500

// checkTags refuses what would be taken for a ticket. With the ticket in custom
// metadata too: whoever reads the file later looks in both places.
func checkTags(tags string) error {
	if strings.Contains(tags, "%") {
		return refuse(CodeBadTags, "A tag holds no percent sign.")
	}
	for tag := range strings.SplitSeq(tags, ",") {
		if ticket.LooksLikeTicket(strings.TrimSpace(tag)) {
			return refuse(CodeTicketTag, "A tag looks like an ownership ticket; those are added here.")
		}
	}
	if n := utf8.RuneCountInString(tags); n > maxTags {
		return refuse(CodeTagsTooLong, "The tags are %d characters together; ImageKit keeps %d.", n, maxTags)
	}
	return nil
}

func addTag(upload *Fields, sealed string) error {
	tags := strings.Trim(upload.get("tags"), ", ")
	if tags != "" {
		tags += ","
	}
	tags += sealed
	if n := utf8.RuneCountInString(tags); n > maxTags {
		return refuse(CodeTagsTooLong, "The tags and the ownership ticket are %d characters together; ImageKit keeps %d.", n, maxTags)
	}
	upload.set("tags", tags)
	return nil
}

// addMetadata puts the ticket into the custom metadata, which a client may send as
// an object or as its JSON text. Encoding it anew leaves each name once.
func addMetadata(upload *Fields, field, sealed string) error {
	values := map[string]json.RawMessage{}
	if given := upload.get("customMetadata"); given != "" {
		if err := json.Unmarshal([]byte(given), &values); err != nil || values == nil {
			return refuse(CodeBadMetadata, "The field uploadPayload.customMetadata is an object.")
		}
	}
	for name := range values {
		if strings.EqualFold(name, field) {
			return refuse(CodeReservedField, "The custom metadata field %s is set here.", field)
		}
	}
	raw, err := plainJSON(sealed)
	if err != nil {
		return err
	}
	values[field] = raw
	text, err := plainJSON(values)
	if err != nil {
		return err
	}
	upload.set("customMetadata", string(bytes.TrimSpace(text)))
	return nil
}

// Package grant answers one question: what may this user upload? It signs uploads
// for ImageKit in both of its ways: V1, whose signature binds nothing but a time, and
// V2, a token over every parameter, into which the ownership ticket goes.
//
// It is apart because it is the only part of ingest that holds the private key. Its
// one invariant: a V2 token never leaves without the ticket of the user who asked,
// and never with another thing in the ticket's place.
package grant

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // ImageKit's V1 signature is HMAC-SHA1
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxLife is the longest that ImageKit takes a permission for.
const MaxLife = time.Hour

// defaultLife is what a permission lasts when the client does not say.
const defaultLife = 30 * time.Minute

// Tickets seals ownership tickets.
type Tickets interface {
	Seal(user, account string) (string, error)
}

// Config says whose uploads are signed, and how.
type Config struct {
	PublicKey   string  // required
	PrivateKey  string  // required
	URLEndpoint string  // told to V1 clients; required
	Tickets     Tickets // required
	Account     string  // the stable name that tickets are bound to; required
	// Signed: only tickets own files, so V1 is refused.
	Signed bool
	// TicketField is the custom metadata field for the ticket; empty puts it into a
	// tag, which needs no set-up at ImageKit.
	TicketField string
	// Folder is the template that uploads are kept under, such as "/u/{sub}"; empty
	// leaves the folder to the client.
	Folder string
	// AllowOverwrite leaves overwriteFile to the client; false sends false. Without a
	// Folder that names the user, it lets users overwrite each other's files.
	AllowOverwrite bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Granter permits uploads. It is safe for concurrent use.
type Granter struct{ Config }

// New checks c.
func New(c Config) (*Granter, error) {
	if c.PublicKey == "" || c.PrivateKey == "" || c.URLEndpoint == "" || c.Account == "" || c.Tickets == nil {
		return nil, errors.New("grant: public key, private key, URL endpoint, account and tickets are required")
	}
	if err := checkTemplate(c.Folder); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Folder = strings.TrimRight(c.Folder, "/")
	return &Granter{c}, nil
}

// Refusal says what is wrong with what a client asked for.
type Refusal struct {
	Code     string // one stable word
	Sentence string // for people
}

func (r *Refusal) Error() string { return "upload refused: " + r.Code }

// CodeSignedMode is the one refusal that is no fault of the request.
const CodeSignedMode = "signed_mode"

// Codes of the refusals of V2.
const (
	CodeBadRequest    = "bad_upload"
	CodeForeignKey    = "foreign_public_key"
	CodeBadExpire     = "bad_expire"
	CodeReservedField = "reserved_field"
	CodeBadFolder     = "bad_folder"
	CodeBadFileName   = "bad_file_name"
	CodeBadTags       = "bad_tags"
	CodeTicketTag     = "ticket_tag"
	CodeTagsTooLong   = "tags_too_long"
	CodeBadMetadata   = "bad_custom_metadata"
)

func refuse(code, sentence string, args ...any) error {
	return &Refusal{Code: code, Sentence: fmt.Sprintf(sentence, args...)}
}

// V1 is what a client needs for one V1 upload.
type V1 struct {
	Token       string `json:"token"`
	Expire      int64  `json:"expire"` // Unix seconds
	Signature   string `json:"signature"`
	PublicKey   string `json:"publicKey"`
	URLEndpoint string `json:"urlEndpoint"`
}

// V1 permits one upload for half an hour. It binds neither the user nor anything
// about the file; ownership of such files rests on who reports them first.
func (g *Granter) V1() (V1, error) {
	if g.Signed {
		return V1{}, refuse(CodeSignedMode, "Uploads are permitted by POST /generate-upload-token only.")
	}
	token, err := uuid()
	if err != nil {
		return V1{}, err
	}
	expire := g.Now().Add(defaultLife).Unix()
	return V1{
		Token: token, Expire: expire, Signature: signV1(g.PrivateKey, token, expire),
		PublicKey: g.PublicKey, URLEndpoint: g.URLEndpoint,
	}, nil
}

func signV1(privateKey, token string, expire int64) string {
	h := hmac.New(sha1.New, []byte(privateKey))
	h.Write([]byte(token + strconv.FormatInt(expire, 10)))
	return hex.EncodeToString(h.Sum(nil))
}

// uuid draws a version 4 UUID.
func uuid() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw upload token: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// V2 is the answer to a V2 request: the token, and exactly the fields that the client
// must send beside file and token.
type V2 struct {
	Token  string `json:"token"`
	Upload Fields `json:"uploadPayload"`
}

// V2 permits one upload to user with the parameters in the request body.
func (g *Granter) V2(user string, body []byte) (V2, error) {
	ask, err := readAsk(body)
	if err != nil {
		return V2{}, err
	}
	if ask.publicKey != "" && ask.publicKey != g.PublicKey {
		return V2{}, refuse(CodeForeignKey, "The publicKey is not the one of this service.")
	}
	upload, err := g.shape(user, ask.upload)
	if err != nil {
		return V2{}, err
	}
	token, err := signV2(g.PublicKey, g.PrivateKey, upload, g.Now(), cmp.Or(ask.life, defaultLife))
	if err != nil {
		return V2{}, err
	}
	return V2{Token: token, Upload: upload}, nil
}

// shape turns what the client asked for into what it gets.
func (g *Granter) shape(user string, asked Fields) (Fields, error) {
	upload := asked.clone()
	if !g.AllowOverwrite {
		upload.set("overwriteFile", "false")
	}
	if err := g.keepInFolder(user, &upload); err != nil {
		return nil, err
	}
	if err := checkTags(upload.get("tags")); err != nil {
		return nil, err
	}
	sealed, err := g.Tickets.Seal(user, g.Account)
	if err != nil {
		return nil, fmt.Errorf("seal ticket: %w", err)
	}
	if g.TicketField != "" {
		err = addMetadata(&upload, g.TicketField, sealed)
	} else {
		err = addTag(&upload, sealed)
	}
	return upload, err
}

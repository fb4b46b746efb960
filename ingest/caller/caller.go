// Package caller answers one question: which user sends this request? It reads the
// bearer token of the application's own sign-in, checked against one shared secret
// (HS256) or against the keys behind one URL (RS256, ES256, EdDSA). It is apart so
// that all that trusts a token can be read in one sitting.
//
// Its one invariant: a user is returned only for a token that one of the configured
// keys signed, with the algorithm that key is for, from the configured issuer, for
// the configured audience, and not yet expired.
package caller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MinSecret is the shortest HS256 secret taken, in bytes: a MAC is no stronger
	// than its key.
	MinSecret = 32
	// MaxToken bounds what is parsed at all.
	MaxToken = 8 << 10
	// MaxSubject is the longest sub that can be an owner, in bytes.
	MaxSubject = 255
	// DevUser is who sends a request without a token while Config.Dev is set.
	DevUser = "user_123"
	// leeway is how far the clocks of the sign-in and ours may differ.
	leeway = 30 * time.Second
)

// Config says whose tokens count. Exactly one of Secret and JWKSURL is set, unless
// Dev is, which alone is enough.
type Config struct {
	Secret   string // HS256; at least MinSecret bytes
	JWKSURL  string // https, or http on loopback
	Issuer   string // required with either
	Audience string // required with either
	// Dev takes a request without Authorization as DevUser. Zero: it is refused.
	Dev bool
	// Client fetches the keys; nil means one with a 5 s limit that follows no redirect.
	Client *http.Client
	// RefreshAfter is the age at which fetched keys are fetched again; 0 means 5 min.
	// A key that was withdrawn is trusted at most so long, or StaleFor when the URL
	// does not answer.
	RefreshAfter time.Duration
	// StaleFor is how long keys are used while the URL fails; 0 means 1 h.
	StaleFor time.Duration
	// RefreshGap is the least time between two fetches, however many unknown keys
	// tokens name; 0 means 10 s.
	RefreshGap time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Reason says in one stable word why a request has no user.
type Reason string

const (
	MissingToken   Reason = "missing_token"
	BadToken       Reason = "bad_token" // unreadable, doubled, too long, or no key of ours signed it
	WrongAlgorithm Reason = "wrong_algorithm"
	UnknownKey     Reason = "unknown_key"
	ExpiredToken   Reason = "expired_token"
	NoExpiry       Reason = "no_expiry"
	NotYetValid    Reason = "not_yet_valid"
	WrongIssuer    Reason = "wrong_issuer"
	WrongAudience  Reason = "wrong_audience"
	BadSubject     Reason = "bad_subject"
	// KeysUnavailable: the token may be good, but the keys cannot be fetched. It is
	// the one reason that is not the caller's fault.
	KeysUnavailable Reason = "keys_unavailable"
)

// Refusal is the error of User. It holds nothing of the token.
type Refusal struct {
	Reason Reason
	Err    error // what failed, for KeysUnavailable
}

func (r *Refusal) Error() string {
	if r.Err != nil {
		return "caller refused: " + string(r.Reason) + ": " + r.Err.Error()
	}
	return "caller refused: " + string(r.Reason)
}

func (r *Refusal) Unwrap() error { return r.Err }

// Checker tells users apart. It is safe for concurrent use and owns no goroutine.
type Checker struct {
	dev    bool
	keys   keySource // nil: no token is good
	parser *jwt.Parser
}

// keySource finds the key for a token whose header alone has been read. Its errors
// are *Refusal.
type keySource interface {
	key(ctx context.Context, algorithm, id string) (any, error)
	algorithms() []string
}

// New checks c.
func New(c Config) (*Checker, error) {
	checker := &Checker{dev: c.Dev}
	if c.Secret == "" && c.JWKSURL == "" {
		if c.Dev {
			return checker, nil
		}
		return nil, errors.New("callers: neither a secret nor a JWKS URL is configured")
	}
	if c.Issuer == "" || c.Audience == "" {
		return nil, errors.New("callers: issuer and audience are required")
	}
	c.Now = orClock(c.Now)
	keys, err := c.source()
	if err != nil {
		return nil, fmt.Errorf("callers: %w", err)
	}
	checker.keys = keys
	checker.parser = jwt.NewParser(
		jwt.WithValidMethods(keys.algorithms()), jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
		jwt.WithStrictDecoding(), jwt.WithTimeFunc(c.Now),
	)
	return checker, nil
}

func orClock(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

func (c Config) source() (keySource, error) {
	switch {
	case c.Secret != "" && c.JWKSURL != "":
		return nil, errors.New("a secret and a JWKS URL exclude each other")
	case c.JWKSURL != "":
		return newKeySet(c)
	case len(c.Secret) < MinSecret:
		return nil, fmt.Errorf("the secret is shorter than %d bytes", MinSecret)
	}
	return secret(c.Secret), nil
}

// secret is the one HS256 key.
type secret []byte

func (s secret) key(context.Context, string, string) (any, error) { return []byte(s), nil }

func (s secret) algorithms() []string { return []string{"HS256"} }

// User returns the sub of the request's token. The error is a *Refusal.
func (c *Checker) User(r *http.Request) (string, error) {
	token, refusal := bearer(r.Header)
	if refusal != nil {
		if c.dev && refusal.Reason == MissingToken {
			return DevUser, nil
		}
		return "", refusal
	}
	if c.keys == nil {
		return "", &Refusal{Reason: BadToken}
	}
	return c.subject(r.Context(), token)
}

func bearer(h http.Header) (string, *Refusal) {
	lines := h["Authorization"]
	switch {
	case len(lines) == 0:
		return "", &Refusal{Reason: MissingToken}
	case len(lines) > 1 || len(lines[0]) > MaxToken:
		return "", &Refusal{Reason: BadToken}
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &Refusal{Reason: BadToken}
	}
	return token, nil
}

func (c *Checker) subject(ctx context.Context, token string) (string, error) {
	// A map keeps names exactly: a struct would also take Sub for sub, which a sign-in
	// that signs its users' own fields may let them choose.
	claims := jwt.MapClaims{}
	parsed, err := c.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if err := plainHeader(t.Header); err != nil {
			return nil, err
		}
		id, _ := t.Header["kid"].(string)
		return c.keys.key(ctx, t.Method.Alg(), id)
	})
	if err != nil {
		return "", c.why(parsed, claims, err)
	}
	subject, err := claims.GetSubject()
	if err != nil {
		return "", &Refusal{Reason: BadToken}
	}
	if !validSubject(subject) {
		return "", &Refusal{Reason: BadSubject}
	}
	return subject, nil
}

// plainHeader refuses tokens that ask to be understood in ways we do not.
func plainHeader(h map[string]any) error {
	if _, ok := h["crit"]; ok {
		return &Refusal{Reason: BadToken}
	}
	switch typ, _ := h["typ"].(string); strings.ToLower(cmp.Or(typ, "jwt")) {
	case "jwt", "at+jwt", "application/at+jwt":
		return nil
	}
	return &Refusal{Reason: BadToken}
}

// why names what was wrong. A token is called expired and the like only after its
// signature was found good, so the word tells a forger nothing.
func (c *Checker) why(t *jwt.Token, claims jwt.MapClaims, err error) error {
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal
	case t != nil && t.Method != nil && !slices.Contains(c.keys.algorithms(), t.Method.Alg()):
		return &Refusal{Reason: WrongAlgorithm}
	case errors.Is(err, jwt.ErrTokenMalformed), errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrInvalidType):
		return &Refusal{Reason: BadToken}
	case noExpiry(claims):
		return &Refusal{Reason: NoExpiry}
	case errors.Is(err, jwt.ErrTokenExpired):
		return &Refusal{Reason: ExpiredToken}
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return &Refusal{Reason: NotYetValid}
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return &Refusal{Reason: WrongIssuer}
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return &Refusal{Reason: WrongAudience}
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return missingClaim(claims)
	}
	return &Refusal{Reason: BadToken}
}

func noExpiry(claims jwt.MapClaims) bool {
	at, err := claims.GetExpirationTime()
	return err == nil && at == nil
}

func missingClaim(claims jwt.MapClaims) error {
	if issuer, _ := claims.GetIssuer(); issuer == "" {
		return &Refusal{Reason: WrongIssuer}
	}
	return &Refusal{Reason: WrongAudience}
}

// validSubject holds that sub can stand in a row, a ticket and a log line: the empty
// owner is nobody's, and PostgreSQL stores no NUL.
func validSubject(sub string) bool {
	if sub == "" || len(sub) > MaxSubject || !utf8.ValidString(sub) {
		return false
	}
	return strings.IndexFunc(sub, unicode.IsControl) < 0
}

package caller

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shared   = "a-shared-secret-of-32-bytes-or-more"
	issuer   = "https://app.example.com"
	audience = "trueup"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func clock() time.Time { return start }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// claims of a good token, changed by change.
func claims(change func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "user_123", "iss": issuer, "aud": audience, "exp": start.Add(time.Hour).Unix(), "iat": start.Unix()}
	if change != nil {
		change(c)
	}
	return c
}

func set(name string, value any) func(jwt.MapClaims) {
	return func(c jwt.MapClaims) {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
}

func hs256(t testing.TB, c jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, c)
	for name, value := range header {
		token.Header[name] = value
	}
	return must(token.SignedString([]byte(shared)))(t)
}

func ask(c *Checker, authorization ...string) (string, Reason) {
	user, err := c.User(&http.Request{Header: http.Header{"Authorization": authorization}})
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return user, refusal.Reason
	}
	return user, ""
}

func TestSecret(t *testing.T) {
	checker := must(New(Config{Secret: shared, Issuer: issuer, Audience: audience, Now: clock}))(t)
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	for name, c := range map[string]struct {
		change func(jwt.MapClaims)
		header map[string]any
		want   Reason
	}{
		"Good":                   {},
		"SeveralAudiences":       {change: set("aud", []string{"x", audience})},
		"ExpiredWithinLeeway":    {change: set("exp", at(-29*time.Second))},
		"TypedAsAccessToken":     {header: map[string]any{"typ": "at+jwt"}},
		"Expired":                {change: set("exp", at(-31*time.Second)), want: ExpiredToken},
		"NoExpiry":               {change: set("exp", nil), want: NoExpiry},
		"ExpiryAsText":           {change: set("exp", "tomorrow"), want: BadToken},
		"NotYet":                 {change: set("nbf", at(time.Minute)), want: NotYetValid},
		"FromTheFuture":          {change: set("iat", at(time.Minute)), want: NotYetValid},
		"WrongIssuer":            {change: set("iss", "https://app.example.com.evil.example"), want: WrongIssuer},
		"NoIssuer":               {change: set("iss", nil), want: WrongIssuer},
		"WrongAudience":          {change: set("aud", "trueup2"), want: WrongAudience},
		"NoAudience":             {change: set("aud", nil), want: WrongAudience},
		"NoSubject":              {change: set("sub", nil), want: BadSubject},
		"EmptySubject":           {change: set("sub", ""), want: BadSubject},
		"SubjectAsNumber":        {change: set("sub", 7), want: BadToken},
		"SubjectOf255":           {change: set("sub", strings.Repeat("x", 255))},
		"SubjectOf256":           {change: set("sub", strings.Repeat("x", 256)), want: BadSubject},
		"SubjectInAnotherCase":   {change: set("Sub", "eve")},
		"OnlyInAnotherCase":      {change: func(c jwt.MapClaims) { delete(c, "sub"); c["SUB"] = "eve" }, want: BadSubject},
		"ExpiryInAnotherCase":    {change: func(c jwt.MapClaims) { c["exp"] = at(-time.Hour); c["EXP"] = at(time.Hour) }, want: ExpiredToken},
		"SubjectWithNUL":         {change: set("sub", "user\x00_123"), want: BadSubject},
		"SubjectWithLineBreak":   {change: set("sub", "user\n_123"), want: BadSubject},
		"AnotherType":            {header: map[string]any{"typ": "logout+jwt"}, want: BadToken},
		"CriticalExtension":      {header: map[string]any{"crit": []string{"b64"}}, want: BadToken},
		"ExpiredAndWrongAudienc": {change: func(c jwt.MapClaims) { c["exp"], c["aud"] = at(-time.Hour), "x" }, want: ExpiredToken},
	} {
		t.Run(name, func(t *testing.T) {
			user, reason := ask(checker, "Bearer "+hs256(t, claims(c.change), c.header))
			if reason != c.want || (user == "") != (c.want != "") || user == "eve" {
				t.Fatalf("got %q, %q; want %q", user, reason, c.want)
			}
		})
	}
	good := hs256(t, claims(nil), nil)
	for name, c := range map[string]struct {
		lines []string
		want  Reason
	}{
		"NoHeader":     {nil, MissingToken},
		"EmptyHeader":  {[]string{""}, BadToken},
		"Doubled":      {[]string{"Bearer " + good, "Bearer " + good}, BadToken},
		"AnotherKind":  {[]string{"Token " + good}, BadToken},
		"Cut":          {[]string{"Bearer " + good[:len(good)-2]}, BadToken},
		"Overlong":     {[]string{"Bearer " + good + strings.Repeat(".", MaxToken)}, BadToken},
		"ManyDots":     {[]string{"Bearer " + strings.Repeat(".", 4000)}, BadToken},
		"Whitespace":   {[]string{"Bearer \t "}, BadToken},
		"LowerCase":    {[]string{"bearer " + good}, ""},
		"TwoTokens":    {[]string{"Bearer " + good + " " + good}, BadToken},
		"AnotherKey":   {[]string{"Bearer " + must(jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil)).SignedString([]byte(strings.Repeat("k", 40))))(t)}, BadToken},
		"Unsigned":     {[]string{"Bearer " + must(jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType))(t)}, WrongAlgorithm},
		"HS384":        {[]string{"Bearer " + must(jwt.NewWithClaims(jwt.SigningMethodHS384, claims(nil)).SignedString([]byte(shared)))(t)}, WrongAlgorithm},
		"ForgedExpiry": {[]string{"Bearer " + strings.Join([]string{strings.Split(good, ".")[0], strings.Split(hs256(t, claims(set("exp", at(-time.Hour))), nil), ".")[1], strings.Split(good, ".")[2]}, ".")}, BadToken},
	} {
		t.Run(name, func(t *testing.T) {
			if _, reason := ask(checker, c.lines...); reason != c.want {
				t.Fatalf("got %q, want %q", reason, c.want)
			}
		})
	}
}

func TestDev(t *testing.T) {
	checker := must(New(Config{Dev: true, Secret: shared, Issuer: issuer, Audience: audience, Now: clock}))(t)
	if user, reason := ask(checker); user != DevUser || reason != "" {
		t.Fatal(user, reason)
	}
	if _, reason := ask(checker, "Bearer nonsense"); reason != BadToken {
		t.Fatal("a wrong token is not the same as none:", reason)
	}
	if user, _ := ask(checker, "Bearer "+hs256(t, claims(set("sub", "other")), nil)); user != "other" {
		t.Fatal(user)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"Nothing":         {},
		"ShortSecret":     {Secret: "SECRET", Issuer: issuer, Audience: audience},
		"NoIssuer":        {Secret: shared, Audience: audience},
		"NoAudience":      {Secret: shared, Issuer: issuer},
		"Both":            {Secret: shared, JWKSURL: "https://x.example/jwks", Issuer: issuer, Audience: audience},
		"PlainHTTP":       {JWKSURL: "http://app.example.com/jwks", Issuer: issuer, Audience: audience},
		"FakeLoopback":    {JWKSURL: "http://127.0.0.1.evil.example/jwks", Issuer: issuer, Audience: audience},
		"NoHost":          {JWKSURL: "https:///jwks", Issuer: issuer, Audience: audience},
		"WithCredentials": {JWKSURL: "https://u:SECRET@x.example/jwks", Issuer: issuer, Audience: audience},
		"File":            {JWKSURL: "file:///etc/jwks", Issuer: issuer, Audience: audience},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(c); err == nil || strings.Contains(err.Error(), "SECRET") {
				t.Fatal(err)
			}
		})
	}
}

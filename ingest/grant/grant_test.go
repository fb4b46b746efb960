package grant

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/ticket"
)

const (
	publicKey  = "public_emulatorKey0123456789abcdef="
	privateKey = "private_emulatorKey0123456789abcdef="
	account    = "demo_id"
)

var start = time.Unix(1767323045, 0)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func setup(t testing.TB, change func(*Config)) (*Granter, *ticket.Keys) {
	t.Helper()
	keys := must(ticket.NewKeys("ticket-secret-ticket-secret-32-byte"))(t)
	c := Config{
		PublicKey: publicKey, PrivateKey: privateKey, URLEndpoint: "https://ik.imagekit.io/demo_id",
		Tickets: keys, Account: account, Now: func() time.Time { return start },
	}
	if change != nil {
		change(&c)
	}
	return must(New(c))(t), keys
}

// TestVectors are signatures made with ImageKit's official SDKs (V1) and with the JWT
// library that its documentation names (V2).
func TestVectors(t *testing.T) {
	for _, v := range []struct {
		token  string
		expire int64
		want   string
	}{
		{"6f1f4e1e-9a0f-4c7e-8b8a-0d6f0c8d1a11", 1767323045, "90274bf89dde3982d9a474e12a1aa763c79dcffb"},
		{"tok", 1582269249, "70d04ab0296f780ecc5d29195e04d8921c775f6a"},
	} {
		if got := signV1(privateKey, v.token, v.expire); got != v.want {
			t.Errorf("V1 %s: got %s", v.token, got)
		}
	}
	const j1 = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InB1YmxpY19lbXVsYXRvcktleTAxMjM0NTY3ODlhYmNkZWY9In0.eyJmaWxlTmFtZSI6ImRyZXNzLmpwZyIsInVzZVVuaXF1ZUZpbGVOYW1lIjoiZmFsc2UiLCJ0YWdzIjoic3VtbWVyLGRyZXNzIiwiaWF0IjoxNzY3MzIzMDQ1LCJleHAiOjE3NjczMjM0NDV9.tSwmDG-m1wDgaM0XcUvkmPUWniK4ouL9HG3EQ64Sjcc"
	fields := Fields{{"fileName", "dress.jpg"}, {"useUniqueFileName", "false"}, {"tags", "summer,dress"}}
	if got := must(signV2(publicKey, privateKey, fields, start, 400*time.Second))(t); got != j1 {
		t.Errorf("V2: got %s", got)
	}
}

func TestV1(t *testing.T) {
	g, _ := setup(t, nil)
	a, b := must(g.V1())(t), must(g.V1())(t)
	if a.Token == b.Token || a.Expire != start.Unix()+1800 || a.Signature != signV1(privateKey, a.Token, a.Expire) || a.PublicKey != publicKey {
		t.Fatalf("%+v", a)
	}
	t.Run("IsGoneInSignedMode", func(t *testing.T) {
		g, _ := setup(t, func(c *Config) { c.Signed = true })
		_, err := g.V1()
		if !refusedAs(err, CodeSignedMode) {
			t.Fatal(err)
		}
	})
}

func refusedAs(err error, code string) bool {
	var refusal *Refusal
	return errors.As(err, &refusal) && refusal.Code == code
}

// claimsOf verifies a token as ImageKit does and returns what it signs.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	h := hmac.New(sha256.New, []byte(privateKey))
	h.Write([]byte(parts[0] + "." + parts[1]))
	if base64.RawURLEncoding.EncodeToString(h.Sum(nil)) != parts[2] {
		t.Fatal("the token is not signed")
	}
	var claims map[string]any
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[1]))(t), &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// TestV2 holds for each request what comes back, and that the token signs exactly
// that. TICKET stands for a ticket that opens for the user who asked.
func TestV2(t *testing.T) {
	claimFolder := func(c *Config) { c.Folder = "/u/{sub}/" }
	field := func(c *Config) { c.TicketField = "owner_ticket" }
	for name, c := range map[string]struct {
		change func(*Config)
		body   string
		want   string
	}{
		"Nothing":           {nil, `{"uploadPayload":{}}`, `{"overwriteFile":"false","tags":"TICKET"}`},
		"Stringified":       {nil, `{"uploadPayload":{"fileName":"a.jpg","useUniqueFileName":false,"n":1.50,"extensions":[ {"name":"remove-bg"} ],"transformation":{"pre" : "w-1"}}}`, `{"fileName":"a.jpg","useUniqueFileName":"false","n":"1.50","extensions":"[{\"name\":\"remove-bg\"}]","transformation":"{\"pre\":\"w-1\"}","overwriteFile":"false","tags":"TICKET"}`},
		"TagsAsText":        {nil, `{"uploadPayload":{"tags":"summer,dress"}}`, `{"tags":"summer,dress,TICKET","overwriteFile":"false"}`},
		"TagsAsList":        {nil, `{"uploadPayload":{"tags":["summer","dress"]}}`, `{"tags":"summer,dress,TICKET","overwriteFile":"false"}`},
		"NoTagsAtAll":       {nil, `{"uploadPayload":{"tags":[]}}`, `{"tags":"TICKET","overwriteFile":"false"}`},
		"TagsNull":          {nil, `{"uploadPayload":{"tags":null}}`, `{"overwriteFile":"false","tags":"TICKET"}`},
		"ResponseFields":    {nil, `{"uploadPayload":{"responseFields":["tags","metadata"]}}`, `{"responseFields":"tags,metadata","overwriteFile":"false","tags":"TICKET"}`},
		"OverwriteForced":   {nil, `{"uploadPayload":{"overwriteFile":true}}`, `{"overwriteFile":"false","tags":"TICKET"}`},
		"OverwriteAllowed":  {func(c *Config) { c.AllowOverwrite = true }, `{"uploadPayload":{"overwriteFile":true}}`, `{"overwriteFile":"true","tags":"TICKET"}`},
		"FolderAsIs":        {nil, `{"uploadPayload":{"folder":"/x"}}`, `{"folder":"/x","overwriteFile":"false","tags":"TICKET"}`},
		"FolderGiven":       {claimFolder, `{"uploadPayload":{}}`, `{"overwriteFile":"false","folder":"/u/user_123","tags":"TICKET"}`},
		"FolderBelow":       {claimFolder, `{"uploadPayload":{"folder":"trips/2026/"}}`, `{"folder":"/u/user_123/trips/2026","overwriteFile":"false","tags":"TICKET"}`},
		"FolderInFull":      {claimFolder, `{"uploadPayload":{"folder":"/u/user_123/trips"}}`, `{"folder":"/u/user_123/trips","overwriteFile":"false","tags":"TICKET"}`},
		"FolderOfAnother":   {claimFolder, `{"uploadPayload":{"folder":"/u/user_1234"}}`, `{"folder":"/u/user_123/u/user_1234","overwriteFile":"false","tags":"TICKET"}`},
		"MetadataTicket":    {field, `{"uploadPayload":{"customMetadata":{"brand":"Nike"}}}`, `{"customMetadata":"{\"brand\":\"Nike\",\"owner_ticket\":\"TICKET\"}","overwriteFile":"false"}`},
		"MetadataAsText":    {field, `{"uploadPayload":{"customMetadata":"{\"brand\":\"A&B\"}"}}`, `{"customMetadata":"{\"brand\":\"A\u0026B\",\"owner_ticket\":\"TICKET\"}","overwriteFile":"false"}`},
		"MetadataNone":      {field, `{"uploadPayload":{}}`, `{"overwriteFile":"false","customMetadata":"{\"owner_ticket\":\"TICKET\"}"}`},
		"MetadataUntouched": {nil, `{"uploadPayload":{"customMetadata":{"brand":"Nike"}}}`, `{"customMetadata":"{\"brand\":\"Nike\"}","overwriteFile":"false","tags":"TICKET"}`},
		"ExpireNull":        {nil, `{"uploadPayload":{},"expire":null,"publicKey":null}`, `{"overwriteFile":"false","tags":"TICKET"}`},
		"OurPublicKey":      {nil, `{"uploadPayload":{},"publicKey":"` + publicKey + `","novel":1}`, `{"overwriteFile":"false","tags":"TICKET"}`},
	} {
		t.Run(name, func(t *testing.T) {
			g, keys := setup(t, c.change)
			got := must(g.V2("user_123", []byte(c.body)))(t)
			sealed := ticketIn(got.Upload)
			if opened, err := keys.Open(sealed, account); err != nil || opened.User != "user_123" {
				t.Fatal(sealed, opened, err)
			}
			raw := strings.ReplaceAll(string(must(json.Marshal(got.Upload))(t)), sealed, "TICKET")
			if raw != c.want {
				t.Fatalf("\ngot  %s\nwant %s", raw, c.want)
			}
			signs(t, got, 1800)
		})
	}
}

func ticketIn(f Fields) string {
	for _, value := range []string{f.get("tags"), f.get("customMetadata")} {
		if i := strings.Index(value, "tu1."); i >= 0 {
			return strings.TrimRight(value[i:], `"}`)
		}
	}
	return ""
}

// signs fails unless the token signs the returned fields, iat and exp, and no more.
func signs(t *testing.T, v V2, life float64) {
	t.Helper()
	claims := claimsOf(t, v.Token)
	if claims["iat"].(float64) != float64(start.Unix()) || claims["exp"].(float64)-claims["iat"].(float64) != life {
		t.Fatal(claims)
	}
	if len(claims) != len(v.Upload)+2 {
		t.Fatalf("%d claims for %d fields", len(claims), len(v.Upload))
	}
	for _, f := range v.Upload {
		if claims[f.Name] != f.Value {
			t.Fatalf("%s is %q, signed as %v", f.Name, f.Value, claims[f.Name])
		}
	}
}

func TestV2Expire(t *testing.T) {
	g, _ := setup(t, nil)
	for given, want := range map[string]float64{"1": 1, "3600": 3600} {
		signs(t, must(g.V2("u", []byte(`{"uploadPayload":{"fileName":"a"},"expire":`+given+`}`)))(t), want)
	}
}

func TestV2Refuses(t *testing.T) {
	folder := func(c *Config) { c.Folder = "/u/{sub}" }
	field := func(c *Config) { c.TicketField = "owner_ticket" }
	payload := func(fields string) string { return `{"uploadPayload":{` + fields + `}}` }
	for name, c := range map[string]struct {
		change func(*Config)
		body   string
		code   string
	}{
		"NoPayload":             {nil, `{}`, CodeBadRequest},
		"PayloadOfText":         {nil, `{"uploadPayload":"a"}`, CodeBadRequest},
		"PayloadNull":           {nil, `{"uploadPayload":null}`, CodeBadRequest},
		"Array":                 {nil, `[]`, CodeBadRequest},
		"File":                  {nil, payload(`"file":"data:"`), CodeReservedField},
		"FileInCapitals":        {nil, payload(`"FILE":"data:"`), CodeReservedField},
		"Token":                 {nil, payload(`"token":"x"`), CodeReservedField},
		"V1Signature":           {nil, payload(`"signature":"x"`), CodeReservedField},
		"Claims":                {nil, payload(`"exp":9999999999`), CodeReservedField},
		"PublicKeyInside":       {nil, payload(`"publicKey":"x"`), CodeReservedField},
		"TagsInCapitals":        {nil, payload(`"Tags":"x"`), CodeReservedField},
		"FolderInCapitals":      {folder, payload(`"Folder":"/"`), CodeReservedField},
		"TwiceTheSame":          {nil, payload(`"tags":"a","tags":"b"`), CodeBadRequest},
		"OddName":               {nil, payload(`"a b":"x"`), CodeBadRequest},
		"ForeignKey":            {nil, `{"uploadPayload":{},"publicKey":"public_other"}`, CodeForeignKey},
		"EmptyKey":              {nil, `{"uploadPayload":{},"publicKey":""}`, CodeForeignKey},
		"ExpireTooLong":         {nil, `{"uploadPayload":{},"expire":3601}`, CodeBadExpire},
		"ExpireZero":            {nil, `{"uploadPayload":{},"expire":0}`, CodeBadExpire},
		"ExpireNegative":        {nil, `{"uploadPayload":{},"expire":-5}`, CodeBadExpire},
		"ExpireFraction":        {nil, `{"uploadPayload":{},"expire":1.5}`, CodeBadExpire},
		"ExpireText":            {nil, `{"uploadPayload":{},"expire":"60"}`, CodeBadExpire},
		"TicketTag":             {nil, payload(`"tags":"a, tu1.x.y"`), CodeTicketTag},
		"TicketTagInList":       {nil, payload(`"tags":["tu1.x.y"]`), CodeTicketTag},
		"TicketTagOfTomorrow":   {nil, payload(`"tags":"tu9.x"`), CodeTicketTag},
		"TicketTagBesideField":  {field, payload(`"tags":"tu1.x.y"`), CodeTicketTag},
		"TicketHiddenByAComma":  {nil, payload(`"tags":["a,tu1.x.y"]`), CodeBadRequest},
		"PercentTag":            {nil, payload(`"tags":"100%"`), CodeBadTags},
		"TagsOfNumbers":         {nil, payload(`"tags":[1]`), CodeBadRequest},
		"TagsTooLong":           {nil, payload(`"tags":"` + strings.Repeat("x", 501) + `"`), CodeTagsTooLong},
		"TagsTooLongWithTicket": {nil, payload(`"tags":"` + strings.Repeat("x", 430) + `"`), CodeTagsTooLong},
		"FolderTraversal":       {folder, payload(`"folder":"../other"`), CodeBadFolder},
		"FolderTraversalInside": {folder, payload(`"folder":"/u/user_123/../other"`), CodeBadFolder},
		"FolderDot":             {folder, payload(`"folder":"./x"`), CodeBadFolder},
		"FolderEscaped":         {folder, payload(`"folder":"%2e%2e/other"`), CodeBadFolder},
		"FolderBackslash":       {folder, payload(`"folder":"..\\elsewhere"`), CodeBadFolder},
		"FolderEmptyStep":       {folder, payload(`"folder":"a//b"`), CodeBadFolder},
		"FolderControl":         {folder, payload(`"folder":"a\u0000b"`), CodeBadFolder},
		"FileNameWithPath":      {folder, payload(`"fileName":"../a.jpg"`), CodeBadFileName},
		"FileNameOfDots":        {folder, payload(`"fileName":".."`), CodeBadFileName},
		"FileNameControl":       {folder, payload(`"fileName":"a\u0000.jpg"`), CodeBadFileName},
		"MetadataTicketForged":  {field, payload(`"customMetadata":{"owner_ticket":"tu1.x.y"}`), CodeReservedField},
		"MetadataTicketCapital": {field, payload(`"customMetadata":{"Owner_Ticket":"tu1.x.y"}`), CodeReservedField},
		"MetadataTicketAsText":  {field, payload(`"customMetadata":"{\"a\":1,\"owner_ticket\":\"x\"}"`), CodeReservedField},
		"MetadataNotAnObject":   {field, payload(`"customMetadata":"[]"`), CodeBadMetadata},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := setup(t, c.change)
			if got, err := g.V2("user_123", []byte(c.body)); !refusedAs(err, c.code) {
				t.Fatalf("got %+v, %v; want %s", got, err, c.code)
			}
		})
	}
}

func TestPathOf(t *testing.T) {
	seen := map[string]string{}
	for _, user := range []string{"user_123", "USER_123", "auth0|507f", "auth0_507f", "a/b", "a.b", "..", ".", "a@b.example", "é", strings.Repeat("x", 64), strings.Repeat("x", 65), pathOf("a/b")} {
		path := pathOf(user)
		if !pathSafe.MatchString(path) {
			t.Errorf("%q becomes %q", user, path)
		}
		if other, ok := seen[path]; ok {
			t.Errorf("%q and %q share %q", user, other, path)
		}
		seen[path] = user
	}
	if got := pathOf("user_123"); got != "user_123" {
		t.Error(got)
	}
}

func TestNewRefusesATemplateThatIsNone(t *testing.T) {
	for _, template := range []string{"u/{sub}", "/u/{user}", "/u/../{sub}", "//{sub}", "/u/%7bsub", `\u`} {
		g, _ := setup(t, nil)
		c := g.Config
		c.Folder = template
		if _, err := New(c); err == nil {
			t.Error(template)
		}
	}
}

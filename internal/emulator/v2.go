package emulator

import (
	"errors"
	"net/http"

	"github.com/golang-jwt/jwt/v5"
)

// uploadV2 is POST /api/v2/files/upload: by private key, or by a token that signs
// every field but the file.
func (e *Emulator) uploadV2(r *http.Request) answer {
	f, done, err := readForm(r, e.Now())
	defer done()
	if err != nil {
		return refuseForm(err)
	}
	if a, refused := e.authorizeV2(r, f); refused {
		return a
	}
	return e.upload(r.Context(), f)
}

func (e *Emulator) authorizeV2(r *http.Request, f *form) (answer, bool) {
	_, basic := basicKey(r)
	switch {
	case basic && f.has("token"):
		return refuse(http.StatusBadRequest, sayBothToken), true
	case basic:
		return e.checkKey(r)
	case f.fields["token"] == "":
		return refuse(http.StatusBadRequest, sayNoToken), true
	}
	payload, until, say := e.openToken(f)
	if say != "" {
		return refuse(http.StatusBadRequest, say), true
	}
	// Used up before anything else is looked at: even a request that fails spends it.
	if a, refused := e.spend("2:"+f.fields["token"], until, sayBadToken); refused {
		return a, true
	}
	if !samePayload(payload, f) {
		return refuse(http.StatusBadRequest, sayPayloadDiffers), true
	}
	return answer{}, false
}

// openToken verifies a V2 token and gives its payload and expiry, or what to say.
func (e *Emulator) openToken(f *form) (payload jwt.MapClaims, until int64, say string) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithJSONNumber(),
		jwt.WithTimeFunc(e.Now))
	payload = jwt.MapClaims{}
	_, err := parser.ParseWithClaims(f.fields["token"], payload, func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != e.PublicKey {
			return nil, errors.New("unknown kid")
		}
		return []byte(e.PrivateKey), nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, 0, sayExpiredToken
	case err != nil:
		return nil, 0, sayBadToken
	}
	issued, err := payload.GetIssuedAt()
	expires, err2 := payload.GetExpirationTime()
	if err != nil || err2 != nil || issued == nil || expires.Sub(issued.Time).Seconds() > 3600 {
		return nil, 0, sayBadToken
	}
	return payload, expires.Unix(), ""
}

// samePayload: the fields sent are the fields signed, neither more nor fewer, and
// every value is text.
func samePayload(payload jwt.MapClaims, f *form) bool {
	if f.several != "" {
		return false
	}
	signed := 0
	for k, v := range payload {
		if k == "iat" || k == "exp" {
			continue
		}
		signed++
		text, isText := v.(string)
		sent, has := f.fields[k]
		if !isText || !has || sent != text {
			return false
		}
	}
	for k := range f.fields {
		if k != "token" && k != "file" {
			signed--
		}
	}
	return signed == 0
}

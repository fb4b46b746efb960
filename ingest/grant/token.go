package grant

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// signV2 makes the token: HS256 with the private key, the public key as kid, every
// parameter as text beside integer iat and exp. It is written by hand because the
// parameters keep their order, which no JWT library's map does.
func signV2(publicKey, privateKey string, upload Fields, now time.Time, life time.Duration) (string, error) {
	kid, err := plainJSON(publicKey)
	if err != nil {
		return "", err
	}
	claims, err := upload.MarshalJSON()
	if err != nil {
		return "", err
	}
	separator := ","
	if len(upload) == 0 {
		separator = ""
	}
	iat := now.Unix()
	text := fmt.Sprintf(`%s%s"iat":%d,"exp":%d}`, claims[:len(claims)-1], separator, iat, iat+int64(life/time.Second))
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT","kid":`+string(kid)+`}`)) + "." + encode([]byte(text))
	h := hmac.New(sha256.New, []byte(privateKey))
	h.Write([]byte(signed))
	return signed + "." + encode(h.Sum(nil)), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

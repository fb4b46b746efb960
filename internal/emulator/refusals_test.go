package emulator

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func signToken(t *testing.T, key, kid string, payload jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, payload)
	token.Header["kid"] = kid
	s, err := token.SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func with(fields map[string]string, pairs ...string) map[string]string {
	out := maps.Clone(fields)
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i]] = pairs[i+1]; pairs[i+1] == "-" {
			delete(out, pairs[i])
		}
	}
	return out
}

func TestUploadRefusals(t *testing.T) {
	a := quiet(t)
	a.put("taken.png")
	a.settings1(`{"maxFileSize":2000}`)
	now := time.Now().Unix()
	v1 := func(pairs ...string) map[string]string { return with(v1Fields(newUUID(), now+600), pairs...) }
	server := func(pairs ...string) map[string]string {
		return with(map[string]string{"fileName": "x.png", "useUniqueFileName": "false"}, pairs...)
	}
	small := plainPNG(2, 2)
	far := newUUID()
	for _, c := range []struct {
		name    string
		basic   bool
		fields  map[string]string
		file    []byte
		status  int
		message string
	}{
		{"NoCredentials", false, server(), small, 401, "Your request does not contain private API key."},
		{"NoFile", true, server(), nil, 400, "Your request is missing file parameter."},
		{"NoFileV1", false, v1(), nil, 400, "Your request is missing file parameter."},
		{"SignatureAndBasic", true, v1(), small, 400, "Your request contains both signature and basic auth parameter. Use only one method, you might be exposing your private API key."},
		{"ExpirePast", false, v1("expire", "1767323045"), small, 400, "Your request contains invalid expire parameter. Expire parameter should be a Unix time in less than 1 hour into the future."},
		{"ExpireTooFar", false, v1("expire", fmt.Sprint(now+4000), "signature", SignUpload(testPrivate, far, now+4000), "token", far), small, 400, "Your request contains invalid expire parameter. Expire parameter should be a Unix time in less than 1 hour into the future."},
		{"ExpireNotANumber", false, v1("expire", "soon"), small, 400, "Your request contains invalid expire parameter. Expire parameter should be a Unix time in less than 1 hour into the future."},
		{"BadSignature", false, v1("token", "other"), small, 400, "Your request contains invalid signature parameter."},
		{"UnknownPublicKey", false, v1("publicKey", "public_x"), small, 403, "Your account cannot be authenticated."},
		{"NameTaken", true, server("fileName", "taken.png", "overwriteFile", "false"), small, 400, "A file with the same name already exists at the exact location. We could not overwrite it because both overwriteFile and useUniqueFileName are set to false."},
		{"TooLarge", true, server(), plainPNG(60, 60), 400, "Your request contains invalid file parameter. The file size exceeds limits."},
		{"BadTransformation", true, server("transformation", "{"), small, 400, "The file could not be uploaded because the transformation field is invalid."},
		{"TransformationOfText", true, server("transformation", `{"pre":"w-10"}`), []byte("plain text"), 400, "The file could not be uploaded because transformations are supported only for image and video files."},
		{"ChecksSyntax", true, server("checks", `"file.size" <`), small, 400, "Your request contains invalid syntax for the checks parameter."},
		{"ChecksUnknownField", true, server("checks", `"file.colour" = "red"`), small, 400, "Your request contains invalid syntax for the checks parameter."},
		{"ChecksSize", true, server("checks", `"file.size" < 10`), small, 400, "Your request failed 'checks' validation."},
		{"ChecksMime", true, server("checks", `"file.mime" : "video/"`), small, 400, "Your request failed 'checks' validation."},
		{"ChecksFolder", true, server("folder", "other", "checks", `"request.folder" : "marketing/" AND "file.size" < "1mb"`), small, 400, "Your request failed 'checks' validation."},
		{"ChecksPass", true, server("folder", "marketing/x", "checks", `"request.folder" : "marketing/" AND ("file.size" > "1mb" OR "file.mime" : "image/")`), small, 200, ""},
		{"Percent", true, server("tags", "a%b"), small, 400, "Your request contains invalid tags parameter. A tag cannot contain %."},
		{"LongTags", true, server("tags", strings.Repeat("t", 501)), small, 400, "Your request contains invalid tags parameter. All tags together cannot be longer than 500 characters."},
		{"NoFileName", true, server("fileName", "-"), small, 400, "Your request is missing fileName parameter."},
		{"NotAFlag", true, server("overwriteFile", "yes"), small, 400, "Your request contains invalid overwriteFile parameter. It is true or false."},
		{"UnknownMetadata", true, server("customMetadata", `{"colour":"red"}`), small, 400, "Invalid custom metadata."},
		{"RemoteFile", true, server("file", "http://192.0.2.1/x.png"), nil, 400, ""},
		{"NotBase64", true, server("file", "%%%"), nil, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := a.post("v1", c.basic, c.fields, c.file)
			if r.status != c.status || c.message != "" && r.text("message") != c.message {
				t.Errorf("%d %s\nwant %d %s", r.status, r.body, c.status, c.message)
			}
		})
	}
}

func TestOneTimeTokens(t *testing.T) {
	a := quiet(t)
	t.Run("SpentByAFailure", func(t *testing.T) {
		fields := v1Fields(newUUID(), time.Now().Unix()+600)
		if r := a.post("v1", false, fields, nil); r.text("message") != sayNoUploadFile {
			t.Fatalf("first: %s", r.body)
		}
		if r := a.post("v1", false, fields, plainPNG(1, 1)); r.status != 400 || r.text("message") != sayUsedToken {
			t.Errorf("second: %d %s", r.status, r.body)
		}
	})
	t.Run("NotSpentByAForgery", func(t *testing.T) {
		fields := v1Fields(newUUID(), time.Now().Unix()+600)
		if r := a.post("v1", false, with(fields, "signature", "00"), plainPNG(1, 1)); r.text("message") != sayBadSignature {
			t.Fatalf("forged: %s", r.body)
		}
		if r := a.post("v1", false, fields, plainPNG(1, 1)); r.status != 200 {
			t.Errorf("genuine: %d %s", r.status, r.body)
		}
	})
}

func TestTokenRefusals(t *testing.T) {
	a := quiet(t)
	now := time.Now().Unix()
	claims := func(pairs ...any) jwt.MapClaims {
		m := jwt.MapClaims{"fileName": "a.png", "tags": "x,y", "iat": now, "exp": now + 600, "n": newUUID()}
		for i := 0; i < len(pairs); i += 2 {
			if m[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
				delete(m, pairs[i].(string))
			}
		}
		return m
	}
	good := func(c jwt.MapClaims) string { return signToken(t, testPrivate, testPublic, c) }
	fields := func(c jwt.MapClaims, token string, pairs ...string) map[string]string {
		m := map[string]string{"token": token}
		for k, v := range c {
			if k != "iat" && k != "exp" {
				m[k] = fmt.Sprint(v)
			}
		}
		return with(m, pairs...)
	}
	plain, used, noIat, number := claims(), claims(), claims("iat", nil), claims("isPrivateFile", true)
	cases := []struct {
		name    string
		basic   bool
		fields  map[string]string
		message string
	}{
		{"Good", false, fields(used, good(used)), ""},
		{"Again", false, fields(used, good(used)), "Your request has invalid token."},
		{"TokenAndBasic", true, fields(plain, good(plain)), "Your request contains both token and basic auth parameter. Use only one method, you might be exposing your private API key."},
		{"Missing", false, fields(plain, "-", "token", "-"), "Your request is missing token parameter."},
		{"Expired", false, fields(plain, good(claims("exp", now-1))), "Your request contains expired token."},
		{"WrongKey", false, fields(plain, signToken(t, "private_x", testPublic, plain)), "Your request has invalid token."},
		{"WrongKid", false, fields(plain, signToken(t, testPrivate, "public_x", plain)), "Your request has invalid token."},
		{"TooLong", false, fields(plain, good(claims("exp", now+3601))), "Your request has invalid token."},
		{"NoIat", false, fields(noIat, good(noIat)), "Your request has invalid token."},
		{"NoExp", false, fields(plain, good(claims("exp", nil))), "Your request has invalid token."},
		{"Garbage", false, fields(plain, "a.b.c"), "Your request has invalid token."},
		{"FieldChanged", false, fields(plain, good(plain), "tags", "x"), "Your request contains invalid payload. It does not match with the payload used to generate token."},
		{"FieldAdded", false, fields(claims("n", "1"), good(claims("n", "1")), "folder", "/z"), "Your request contains invalid payload. It does not match with the payload used to generate token."},
		{"FieldLeftOut", false, fields(claims("n", "2"), good(claims("n", "2")), "tags", "-"), "Your request contains invalid payload. It does not match with the payload used to generate token."},
		{"NotStringified", false, fields(number, good(number)), "Your request contains invalid payload. It does not match with the payload used to generate token."},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := a.post("v2", c.basic, c.fields, plainPNG(1, 1))
			if want := map[bool]int{true: 200, false: 400}[c.message == ""]; r.status != want || r.text("message") != c.message {
				t.Errorf("%d %s\nwant %d %s", r.status, r.body, want, c.message)
			}
		})
	}
}

func TestManagementRefusals(t *testing.T) {
	a := quiet(t)
	up := a.put("a.png", "folder", "in")
	a.put("b.png", "folder", "in")
	id, nobody := up.text("fileId"), "598821f949c0a938d57563bd"
	hundred := `["` + strings.Repeat(nobody+`","`, 100) + nobody + `"]`
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"GET", "/v1/files/nonsense/details", "", 400, sayInvalidID},
		{"GET", "/v1/files/598821F949C0A938D57563BD/details", "", 400, sayInvalidID},
		{"GET", "/v1/files/..%2F..%2Fdetails/details", "", 400, sayInvalidID},
		{"GET", "/v1/files/" + nobody + "/details", "", 404, sayNoFile},
		{"PATCH", "/v1/files/" + nobody + "/details", "{}", 404, sayNoFile},
		{"PATCH", "/v1/files/" + id + "/details", `{"customMetadata":{"x":1}}`, 400, sayInvalidMetadata},
		{"DELETE", "/v1/files/x", "", 400, sayInvalidID},
		{"GET", "/v1/files?skip=-1", "", 400, "The value of skip parameter should be greater than or equal to 0. Value sent is -1."},
		{"GET", "/v1/files?limit=0", "", 400, "Minimum value of limit parameter is 1. Value sent is 0."},
		{"GET", "/v1/files?limit=2000", "", 400, "Maximum value of limit parameter is 1000. Value sent is 2000."},
		{"GET", "/v1/files?sort=UP", "", 400, "Your request contains invalid value for sort parameters."},
		{"GET", "/v1/files?type=thing", "", 400, "Your request contains invalid value for type parameter. Please provide one of the following: file, file-version, folder, all."},
		{"GET", "/v1/files/" + id + "/versions/x", "", 400, "Your request contains invalid versionId parameter."},
		{"GET", "/v1/files/" + id + "/versions/" + nobody, "", 404, "The requested file version does not exist."},
		{"DELETE", "/v1/files/" + id + "/versions/" + id, "", 400, "You cannot delete current version of a file."},
		{"DELETE", "/v1/files/" + id + "/versions/" + nobody, "", 404, "The requested asset does not exist."},
		{"PUT", "/v1/files/" + id + "/versions/" + nobody + "/restore", "", 404, "The requested file version does not exist."},
		{"PUT", "/v1/files/" + nobody + "/versions/" + nobody + "/restore", "", 404, sayNoFile},
		{"POST", "/v1/files/batch/deleteByFileIds", `{}`, 400, "fileIds parameter is missing."},
		{"POST", "/v1/files/batch/deleteByFileIds", `{"fileIds":"x"}`, 400, "fileIds should be an Array."},
		{"POST", "/v1/files/batch/deleteByFileIds", `{"fileIds":[]}`, 400, "fileIds is empty."},
		{"POST", "/v1/files/batch/deleteByFileIds", `{"fileIds":` + hundred + `}`, 400, "fileIds cannot have more than 100 items."},
		{"POST", "/v1/files/batch/deleteByFileIds", `{"fileIds":["` + id + `","` + nobody + `"]}`, 404, "The requested file(s) does not exist."},
		{"POST", "/v1/files/addTags", `{"tags":["a"],"fileIds":` + hundred + `}`, 400, "A maximum of 50 files can be edited at a time."},
		{"POST", "/v1/files/copy", `{"sourceFilePath":"/x.jpg","destinationPath":"/y"}`, 404, "No file found with filePath `/x.jpg`."},
		{"POST", "/v1/files/move", `{"sourceFilePath":"/in/a.png"}`, 400, ""},
		{"POST", "/v1/files/move", `{"sourceFilePath":"/in/a.png","destinationPath":"/in/"}`, 400, ""},
		{"PUT", "/v1/files/rename", `{"filePath":"/in/a.png","newFileName":"b.png"}`, 409, ""},
		{"PUT", "/v1/files/rename", `{"filePath":"/in/a.png","newFileName":"a.png"}`, 400, ""},
		{"PUT", "/v1/files/rename", `{"filePath":"/in/z.png","newFileName":"a.png"}`, 404, ""},
		{"PUT", "/v1/files/rename", `{"filePath":"/in/a.png","newFileName":"a/b"}`, 400, ""},
		{"DELETE", "/v1/folder", `{"folderPath":"/none"}`, 404, ""},
		{"POST", "/v1/bulkJobs/moveFolder", `{"sourceFolderPath":"/none","destinationPath":"/x"}`, 404, ""},
		{"POST", "/v1/bulkJobs/moveFolder", `{"sourceFolderPath":"/","destinationPath":"/x"}`, 400, ""},
		{"POST", "/v1/bulkJobs/moveFolder", `{"sourceFolderPath":"/in","destinationPath":"/in/deeper"}`, 400, ""},
		{"POST", "/v1/bulkJobs/renameFolder", `{"folderPath":"/none","newFolderName":"x"}`, 404, "Source folder not found."},
		{"POST", "/v1/files/purge", `{"url":"https://elsewhere.example/x"}`, 400, "The URL is not valid for cache purging."},
		{"GET", "/v1/files/purge/none", "", 400, "No request found for this requestId."},
		{"GET", "/v1/accounts/usage", "", 400, "startDate and endDate are required in query parameters."},
		{"GET", "/v1/accounts/usage?startDate=1&endDate=2", "", 400, "startDate and endDate should be in format YYYY-MM-DD."},
		{"GET", "/v1/accounts/usage?startDate=2026-01-02&endDate=2026-01-01", "", 400, "startDate should be before endDate."},
		{"GET", "/v1/accounts/usage?startDate=2026-01-01&endDate=2026-06-01", "", 400, "startDate and endDate should be within 90 days."},
		{"GET", "/v1/nothing", "", 404, ""},
	} {
		r := a.call(c.method, c.path, c.body)
		if r.status != c.status || c.message != "" && r.text("message") != c.message {
			t.Errorf("%s %s %.80s: %d %s\nwant %d %s", c.method, c.path, c.body, r.status, r.body, c.status, c.message)
		}
		if r.header.Get("x-ik-requestId") == "" || r.text("help") == "" {
			t.Errorf("%s %s: no request id or help: %s", c.method, c.path, r.body)
		}
	}
	if a.must(200, "GET", "/v1/files/"+id+"/details", "").text("fileId") != id {
		t.Error("a refused bulk delete deleted something")
	}
}

func TestKeys(t *testing.T) {
	a := quiet(t)
	for _, c := range []struct {
		name, header string
		status       int
		message      string
	}{
		{"None", "", 401, sayNoKey},
		{"Bearer", "Bearer x", 401, sayNoKey},
		{"ColonOnly", "Basic cHJpdmF0ZV9lbXVsYXRvcktleTAxMjM0NTY3ODlhYmNkZWY9Og==", 200, ""},
		{"SDKPassword", "Basic cHJpdmF0ZV9lbXVsYXRvcktleTAxMjM0NTY3ODlhYmNkZWY9OmRvX25vdF9zZXQ=", 200, ""},
		{"NotEncoded", "Basic " + testPrivate, 200, ""},
		{"Wrong", "Basic cHJpdmF0ZV94Og==", 403, sayUnknownKey},
	} {
		req := a.request("GET", "/v1/files", "")
		req.Header.Set("Authorization", c.header)
		if c.header == "" {
			req.Header.Del("Authorization")
		}
		if r := a.send(req); r.status != c.status || c.message != "" && r.text("message") != c.message {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
		}
	}
}

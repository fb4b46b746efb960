package conform

import (
	"time"

	"github.com/trueup/trueup/internal/file"
)

// mishap is what comes back instead of an answer, and what it is called.
type mishap struct {
	fault map[string]any
	kind  file.FaultKind
	// status is what the fault must tell.
	status int
	wait   time.Duration
}

func mishaps() map[string]mishap {
	html := map[string]string{"Content-Type": "text/html"}
	return map[string]mishap{
		"400":               {map[string]any{"status": 400}, file.BadRequest, 400, 0},
		"401":               {map[string]any{"status": 401}, file.Unauthorized, 401, 0},
		"402":               {map[string]any{"status": 402}, file.Forbidden, 402, 0},
		"403":               {map[string]any{"status": 403}, file.Forbidden, 403, 0},
		"429WithReset":      {map[string]any{"status": 429, "headers": fields{"X-RateLimit-Reset": "1500"}}, file.Limited, 429, 1500 * time.Millisecond},
		"429WithRetryAfter": {map[string]any{"status": 429, "headers": fields{"Retry-After": "2"}}, file.Limited, 429, 2 * time.Second},
		"429Bare":           {map[string]any{"status": 429}, file.Limited, 429, 0},
		"429Zero":           {map[string]any{"status": 429, "headers": fields{"X-RateLimit-Reset": "0"}}, file.Limited, 429, 0},
		"429Huge":           {map[string]any{"status": 429, "headers": fields{"X-RateLimit-Reset": "1e12"}}, file.Limited, 429, 15 * time.Minute},
		"500":               {map[string]any{"status": 500}, file.Unavailable, 500, 0},
		"502HTML":           {map[string]any{"status": 502, "body": "<h1>Bad Gateway</h1>", "headers": html}, file.Unavailable, 502, 0},
		"503":               {map[string]any{"status": 503}, file.Unavailable, 503, 0},
		"HTML":              {map[string]any{"body": "<h1>It works!</h1>", "headers": html}, file.Garbled, 200, 0},
		"Truncated":         {map[string]any{"body": `{"fileId":"6`, "headers": fields{"Content-Type": "application/json"}}, file.Garbled, 200, 0},
		"Empty":             {map[string]any{"body": "", "headers": fields{"Content-Type": "application/json"}}, file.Garbled, 200, 0},
		"Null":              {map[string]any{"body": "null", "headers": fields{"Content-Type": "application/json"}}, file.Garbled, 200, 0},
		"WrongTypes":        {map[string]any{"body": map[string]any{"fileId": 6, "type": "file"}}, file.Garbled, 200, 0},
		"MissingFields":     {map[string]any{"body": map[string]any{"type": "file"}}, file.Garbled, 200, 0},
		"Redirect":          {map[string]any{"status": 302, "headers": fields{"Location": "/v1/files"}}, file.Garbled, 302, 0},
		"Cut":               {map[string]any{"close": true}, file.Unreachable, 200, 0},
	}
}

package ingest

import (
	"net/http"
	"time"
)

// NewServer returns an HTTP server for handler whose timeouts leave nobody a
// connection for nothing: headers within 5 s, the whole request within 15 s, the
// answer within maxWait and a margin.
func NewServer(addr string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15*time.Second + maxWait + 5*time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}

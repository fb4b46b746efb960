package queue

import "github.com/trueup/trueup/internal/event"

// EncodeEnvelope writes an envelope as it stands in the stream, for whoever stands in
// for one.
func EncodeEnvelope(env *event.Envelope) ([]byte, error) { return encodeEnvelope(env) }

// DecodeEnvelope reads what EncodeEnvelope, or a Queue, wrote. The bodies are parts of
// data, not copies.
func DecodeEnvelope(data []byte) (event.Envelope, error) { return decodeEnvelope(data) }

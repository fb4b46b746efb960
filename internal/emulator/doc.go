// Package emulator is a stand-in for ImageKit: one origin that serves the
// management API (/v1/*), both upload APIs (/api/v1|v2/files/upload) and delivery
// of the bytes, and that sends signed webhooks. It is faithful enough for
// ImageKit's official SDKs, which need only IMAGE_KIT_BASE_URL. /_emulator/*
// controls it.
//
// It stands apart from everything else: nothing of trueup's own is imported here
// and no other package imports more than New, Run and the signer, so a test
// against it is a test against an opinion of ImageKit written down on its own.
// Where ImageKit's behaviour is not documented there is a setting for each
// plausible behaviour, because a test against one reading only proves that we
// agree with ourselves.
//
// Its one invariant: what anybody was told, or could have seen, survives kill -9.
package emulator

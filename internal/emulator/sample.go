package emulator

import (
	"fmt"
	"time"
)

// WebhookKinds are the types of webhook that ImageKit sends.
func WebhookKinds() []string {
	return []string{
		"file.created", "file.updated", "file.deleted", "file-version.created", "file-version.deleted",
		"upload.pre-transform.success", "upload.pre-transform.error", "upload.post-transform.success", "upload.post-transform.error",
		"video.transformation.accepted", "video.transformation.ready", "video.transformation.error",
	}
}

// object is JSON in the making.
type object = map[string]any

// sample is what the invented webhooks of SampleWebhook speak of.
type sample struct {
	fileID string
	now    time.Time
}

const sampleURL = "https://ik.imagekit.io/demo_id/samples/"

// SampleWebhook is the body of a webhook of one kind about a file that need not
// exist, as ImageKit would write it at now. Sign it with SignWebhook.
func SampleWebhook(kind, fileID string, now time.Time) ([]byte, error) {
	s := sample{fileID: fileID, now: now}
	data, request := s.data(kind)
	if data == nil {
		return nil, fmt.Errorf("there is no webhook of kind %q", kind)
	}
	b, err := encode(envelope{Type: kind, ID: newUUID(), CreatedAt: stampText(now.UnixMilli()), Request: request, Data: data})
	if err != nil {
		return nil, err
	}
	return b[:len(b)-1], nil
}

func (s sample) data(kind string) (data, request any) {
	switch kind {
	case "file.created", "file.updated", "file-version.created":
		return s.file(), nil
	case "file.deleted":
		return object{"fileId": s.fileID}, nil
	case "file-version.deleted":
		return object{"fileId": s.fileID, "versionId": newID(s.now)}, nil
	case "upload.pre-transform.success":
		return s.upload(), s.request("w-1200,q-80")
	case "upload.pre-transform.error":
		return object{"name": "sample.mp4", "path": "/samples/sample.mp4", "transformation": broken("encoding_failed")}, s.request("w-1200,q-80")
	case "upload.post-transform.success", "upload.post-transform.error":
		return s.derived(kind), s.request(object{"type": "abs", "protocol": "hls", "value": "sr-240_360_480"})
	}
	return s.video(kind)
}

func (s sample) request(transformation any) object {
	return object{"x_request_id": newUUID(), "transformation": transformation}
}

func broken(reason string) object { return object{"error": object{"reason": reason}} }

func (s sample) file() fileView {
	at := stampText(s.now.UnixMilli())
	link := fmt.Sprintf("%ssample.jpg?updatedAt=%d", sampleURL, s.now.UnixMilli())
	alpha := false
	return fileView{
		Type: "file", FileID: s.fileID, Name: "sample.jpg", FilePath: "/samples/sample.jpg", Tags: []string{"sample"},
		VersionInfo: versionInfo{ID: s.fileID, Name: "Version 1"}, CustomMetadata: object{}, IsPublished: true,
		URL: link, Thumbnail: link + "&tr=n-ik_ml_thumbnail", FileType: "image", MIME: "image/jpeg",
		Width: 1200, Height: 800, Size: 183422, HasAlpha: &alpha, CreatedAt: at, UpdatedAt: at,
	}
}

func (s sample) upload() uploadView {
	return uploadView{
		FileID: s.fileID, Name: "sample.mp4", Size: 183422, VersionInfo: versionInfo{ID: s.fileID, Name: "Version 1"},
		FilePath: "/samples/sample.mp4", URL: sampleURL + "sample.mp4", FileType: "non-image", Height: 720, Width: 1280,
		ThumbnailURL: "https://ik.imagekit.io/demo_id/tr:n-ik_ml_thumbnail/samples/sample.mp4",
	}
}

func (s sample) derived(kind string) object {
	o := object{"fileId": s.fileID, "name": "sample.mp4", "url": sampleURL + "sample.mp4/ik-master.m3u8?tr=sr-240_360_480"}
	if kind == "upload.post-transform.error" {
		o["path"], o["transformation"] = "/samples/sample.mp4", broken("encoding_failed")
	}
	return o
}

func (s sample) video(kind string) (data, request any) {
	transformation := object{"type": "video-transformation", "options": object{
		"video_codec": "vp9", "audio_codec": "opus", "auto_rotate": true, "quality": 50, "format": "webm",
	}}
	switch kind {
	case "video.transformation.accepted":
	case "video.transformation.ready":
		transformation["output"] = object{"url": sampleURL + "sample.mp4?tr=f-webm", "video_metadata": object{
			"duration": 15.02, "width": 1280, "height": 720, "bitrate": 180260,
		}}
	case "video.transformation.error":
		transformation["error"] = object{"reason": "encoding_failed"}
	default:
		return nil, nil
	}
	data = object{"asset": object{"url": sampleURL + "sample.mp4"}, "transformation": transformation}
	return data, object{"url": sampleURL + "sample.mp4?tr=f-webm", "x_request_id": newUUID(), "user_agent": "Mozilla/5.0"}
}

// Package emulator is a stand-in for ImageKit: one origin that serves the
// management API (/v1/*), both upload APIs (/api/v1|v2/files/upload) and delivery
// of the bytes, and that sends signed webhooks. It is faithful enough for
// ImageKit's official SDKs, which need only IMAGE_KIT_BASE_URL. /_emulator/*
// controls it.
//
// It stands apart from everything else: it imports nothing of trueup's own, so a
// test against it is a test against an opinion of ImageKit written down on its
// own. Where ImageKit's behaviour is not documented there is a setting for each
// plausible behaviour, because a test against one reading only proves that we
// agree with ourselves.
//
// Its one invariant: what anybody was told, or could have seen, survives kill -9.
// Requests and webhooks are counted since start; folder jobs and cache purges are
// forgotten at the end; the memory of a lagging listing is too.
//
// # Settings
//
// GET and PATCH /_emulator/settings. Durations are texts like "1.5s" or "365d"; a
// field that is not in this table is refused. Only what was patched is kept.
//
//	setting                            default   does
//	webhooks.enabled                   true      false: nothing new is sent, and what is due is dropped
//	webhooks.url                       Config    where to; empty sends nothing
//	webhooks.dropRate                  0         share of webhooks that are never sent
//	webhooks.duplicateRate             0         share that is sent again after it arrived
//	webhooks.reorder                   false     each is held back by chance, up to reorderWithin
//	webhooks.reorderWithin             1s
//	webhooks.delay                     0s        each is held back this long
//	webhooks.retrySchedule             5s,30s,2m,10m,1h×23   waits between attempts; then it is given up
//	webhooks.timeout                   30s       of one attempt
//	webhooks.signatureHeaders          both      standard: webhook-*; legacy: x-ik-signature
//	webhooks.specKey                   false     sign with the decoded secret, as Standard Webhooks has it; the SDKs refuse that
//	webhooks.overwriteAlsoUpdates      false     an overwrite sends file.updated beside file-version.created
//	webhooks.versionEvents             true      false: an overwrite sends file.updated instead, a version delete nothing
//	webhooks.versionEventType          file      data.type of file-version.created; or file-version
//	webhooks.deleteEmitsVersionEvents  false     deleting a file also sends file-version.deleted for each version
//	webhooks.bulkEvents                true      false: bulk and folder operations send nothing
//	listLag                            0s        GET /v1/files shows files as they were this long ago; by-id calls never lag
//	visibilityDelay                    0s        by-id calls answer 404 until a file is this old
//	rateLimit.perSecond, .burst        40, 100   of each reading endpoint; perSecond 0 is unlimited
//	writeRateLimit.perSecond, .burst   5, 20     of each writing endpoint; uploads and delivery have none
//	rateHeaders                        true      false: X-RateLimit-* on 429 only
//	idSearch                           true      false: a searchQuery with the field id is a 400
//	idSearchMax                        500       more values in id IN are a 400; 0 is no limit
//	urlMax                             8192      a longer GET /v1/files is a 400; 0 is no limit
//	skipCap                            0         a larger skip is a 400; 0 is no limit
//	searchDefaultType                  all       a searchQuery without type finds files and folders; file: files only
//	moveChangesId                      false     move and rename make another file: new fileId and createdAt, the old one is 404
//	regressOnRestore                   false     restoring a version brings its old updatedAt back
//	emptyBodyAs200                     false     200 {} instead of 204, which Go's SDK 2.10.0 cannot read
//	anyCustomMetadata                  false     true: values for fields that were never created are taken
//	maxFileSize, maxVideoSize          25 MiB, 100 MiB   larger uploads are a 400; 0 leaves the request's 101 MiB
//	seed                               0         of every chance in webhooks and faults, and of generated files; PATCH starts it anew
//
// # Other control calls
//
// POST /_emulator/faults takes a [Fault] or an array of them; GET lists them with
// how often each fired, DELETE removes all, DELETE /_emulator/faults/{id} one. GET
// /_emulator/stats and /_emulator/requests count since start or reset: early counts
// calls that came before a 429's X-RateLimit-Reset had passed, webhooks.sent counts
// attempts. GET /_emulator/deliveries are those attempts with their answers, GET
// /_emulator/history what happened to which file; these logs and requests keep their
// last 20,000 lines, numbered from 1, and ?after=N shows the later ones. GET
// /_emulator/files is the whole library as details show it, one file a line. POST
// /_emulator/files/generate makes files, POST /_emulator/reset empties everything
// but the key pair.
//
// # Known gaps
//
// Transformations deliver the original bytes. Nothing fills AITags or embedded
// metadata, and extensions stay "pending". Folders are never locked (423), a rename
// with purge is never partial (207) and accounts never expire: ask a [Fault] for
// those answers. Saved extensions, named transformations, origins, URL endpoints
// and the account's webhook API are not here. Videos have no sides or duration.
package emulator

package rows

import "errors"

// ErrTaken means that imagekit_files holds a row of this file already.
var ErrTaken = errors.New("duplicate key value violates unique constraint \"imagekit_files_file_id_key\"")

// InsertRow is an INSERT of somebody's own into imagekit_files. The row's id is drawn.
func (db *Database) InsertRow(r Row) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.rows[r.FileID] != nil {
		return ErrTaken
	}
	db.writes++
	db.nextRow++
	r.ID, r.xmin = db.nextRow, db.writes
	db.rows[r.FileID] = &r
	return nil
}

// UpdateRow is an UPDATE of somebody's own: change may replace whatever it likes but the
// ids. It says whether there was such a row.
func (db *Database) UpdateRow(fileID string, change func(*Row)) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	r := db.rows[fileID]
	if r == nil {
		return false
	}
	db.writes++
	changed := *r
	change(&changed)
	changed.ID, changed.FileID, changed.xmin = r.ID, r.FileID, db.writes
	*r = changed
	return true
}

// DeleteRow is a DELETE of somebody's own; it says whether there was such a row.
func (db *Database) DeleteRow(fileID string) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	_, had := db.rows[fileID]
	db.writes++
	delete(db.rows, fileID)
	return had
}

// TruncateRows is a TRUNCATE of imagekit_files.
func (db *Database) TruncateRows() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.writes++
	clear(db.rows)
}

// FileIDs are the ids of all live rows, in the byte order: what a person would pick from.
func (db *Database) FileIDs() []string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return sorted(db.rows)
}

package localpg

// relocatedMark stands in the folder above bin and lib of an installation that
// Fetch laid down.
const relocatedMark = ".trueup-postgres"

// Package planted holds wrong builds of trueup, each with one bug that somebody could
// really write, and proves that the tests notice every one of them.
//
// It stands apart so that no wrong line is ever in the tree: a bug is a file in bugs/ that
// says which lines to read otherwise, and is built through the compiler's overlay. Its one
// invariant: a bug counts as caught only by a named test that passes without it and fails
// with it; a build that does not compile, or a test that does not run, catches nothing.
//
//	go test ./internal/planted -run TestEveryBugIsCaught -all [-bug REGEXP] [-record FILE]
//
// Without -all, as in CI, only the bugs in the pure rules are built; all are held against
// the tree.
package planted

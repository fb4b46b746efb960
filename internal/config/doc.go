// Package config turns the environment into one checked struct per role.
//
// It is apart so that no other package reads the environment: what a part needs is
// a field it is given. There is one table of variables, the struct tags of Config;
// decoding, `trueup help config`, the README's table and deploy/env.example are all
// made from it, so they cannot disagree.
//
// Its invariant: a Config that Load returned is usable as it stands, for the role it
// was loaded for, and no secret in it can be printed by accident. Load reports every
// mistake at once, never only the first.
package config

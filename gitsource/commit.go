package gitsource

import "time"

// Person is who wrote or made a commit, and when.
type Person struct {
	Name  string
	Email string
	When  time.Time // Git keeps whole seconds and the offset of the zone
}

// NewCommit is a commit to be made. Equal values give equal commit ids.
type NewCommit struct {
	Parents   []ObjectID // none for a root commit; the first is the branch that is written to
	Tree      ObjectID
	Message   string
	Author    Person
	Committer Person
}

// Commit is a commit as it stands in a repository.
type Commit struct {
	ID        ObjectID
	Tree      ObjectID
	Parents   []ObjectID
	Author    Person
	Committer Person
	Message   string
}

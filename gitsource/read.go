package gitsource

// Read is one answer of a Tree that something was made from. An empty ID says that only the kind mattered: a folder was
// walked through, a file was found to be there.
type Read struct {
	Path string    `json:"p"`
	Kind EntryKind `json:"k,omitempty"` // without the executable bit
	ID   ObjectID  `json:"i,omitempty"`
}

// Holds reports whether tree gives the same answer. An error means that nobody knows.
func (r Read) Holds(tree Tree) (bool, error) {
	found, err := tree.Entry(r.Path)
	if err != nil {
		return false, err
	}
	return found.Kind.Plain() == r.Kind && (r.ID == "" || r.ID == found.ID), nil
}

// Reads are all answers that something was made from: it is the same again for every Tree of which they hold.
type Reads []Read

// Hold reports whether tree gives the same answers.
func (r Reads) Hold(tree Tree) (bool, error) {
	for _, one := range r {
		if same, err := one.Holds(tree); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// Plain is the kind without the executable bit, which nothing that is rendered depends on.
func (k EntryKind) Plain() EntryKind {
	if k == Executable {
		return File
	}
	return k
}

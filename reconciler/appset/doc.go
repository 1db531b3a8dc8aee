// Package appset decides which Applications an ApplicationSet asks for, and which of those that there are may go.
//
// Entries that cannot be used are told of one by one and stand in nobody's way, and an Application whose entry is broken
// counts as wanted: what is not understood is never a reason to remove something. It reads no clock and no cluster: equal
// inputs give equal answers.
package appset

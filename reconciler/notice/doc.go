// Package notice decides what a Notification tells: which changes concern it, what the text is, and what is too much.
// It reads no clock and sends nothing. A template of a user gets a handful of words and no way to loop, to call or to make
// text longer, so that it costs what it is long.
package notice

package main

// currency is that of the prices.
func currency() (string, error) { return "EUR", nil }

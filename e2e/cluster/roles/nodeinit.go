package main

func runNodeInit() int { return 1 }

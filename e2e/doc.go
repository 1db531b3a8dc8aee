// Package e2e tests Slipway as a whole: its architecture here, its programs in the folders below.
//
// TestArchitecture holds which package may import which. Who adds a package gives it a place in the table of layers.
package e2e

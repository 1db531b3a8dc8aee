package reconciler

import "github.com/slipway-cd/slipway/manifests/v1alpha1"

// NewOCISource returns the loop over OCISources.
func NewOCISource(o ArtifactOptions) (*ArtifactReconciler, error) {
	return newArtifact(v1alpha1.KindOCISource, o)
}

// NewChartSource returns the loop over ChartSources.
func NewChartSource(o ArtifactOptions) (*ArtifactReconciler, error) {
	return newArtifact(v1alpha1.KindChartSource, o)
}

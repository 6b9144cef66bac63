// The benchmark is a module of its own, so that hvlab's rivals stay out of
// hvlab's dependencies.
module github.com/hvlab/hvlab/internal/bench

go 1.26.8

require (
	github.com/google/uuid v1.6.0
	github.com/hvlab/hvlab v0.0.0
	google.golang.org/grpc v1.85.0
)

replace github.com/hvlab/hvlab => ../..

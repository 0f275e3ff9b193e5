// The operations of training that the binding may call, beside those of runtime.h.
#pragma once
#include "../ops_training.h"
#include "runtime.h"

namespace gqa {

// ---- attend_backward.cc
Status attendBackward(const AttendBackwardProblem& problem);

// ---- training.cc
void transpose(const float* x, float* out, int64_t rows, int64_t columns);
// gradWeight is added to, or null.
Status rmsNormBackward(const RmsNormBackwardProblem& problem, int64_t tokens, float* gradWeight);
void swigluBackward(const float* gate, const float* up, const float* gradOut, float* gradGate, float* gradUp,
                    int64_t count);
void crossEntropy(const CrossEntropyProblem& problem);
void adamW(const AdamWProblem& problem);
Status sumSquares(const float* x, int64_t count, double* sum);

}  // namespace gqa

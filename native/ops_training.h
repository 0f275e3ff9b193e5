// What training adds to the table of operations, the twin of lib/backend/contract-training.ts. All arrays are f32.
#pragma once
#include "ops.h"

namespace gqa {

// The gradients of attention over plain tensors.
struct AttendBackwardProblem {
  AttendProblem forward;  // without mask, bias, ALiBi, sink logits and dropout; `out` and `lse` are what attend wrote
  const float* gradOut;
  float* gradQ;
  float* gradK;
  float* gradV;
};

// Query tokens [firstToken, firstToken + tokens) of one (batch, KV head), all heads of its group, against all keys.
struct AttendBackwardTask {
  const AttendBackwardProblem* problem;
  int64_t batch, kvHead, firstToken, tokens;
  // What these rows give keys and values, of the shapes of gradK and gradV: written, or added to what is there.
  float* gradK;
  float* gradV;
  bool add;
  float* scratch;  // attendBackwardFloats floats, 64-byte aligned
};

struct RmsNormBackwardProblem {
  const float* x;
  const float* weight;
  const float* gradOut;
  float* gradX;
  int64_t dim;
  float eps;
};

struct CrossEntropyProblem {
  float* logits;
  const float* teacher;  // or null, as kl then is
  const int32_t* targets;
  float* nll;
  float* kl;
  int64_t rows, vocab;
  float teacherShare, weight;
};

struct AdamWProblem {
  float* weight;
  const float* gradient;
  float* m;
  float* v;
  int64_t count;
  double gradientScale, rate, beta1, beta2, eps, decay, correction1, correction2;
};

struct TrainingTable {
  // Floats of scratch that a task of so many query tokens needs.
  int64_t (*attendBackwardFloats)(const AttendBackwardProblem&, int64_t tokens);
  void (*attendBackward)(const AttendBackwardTask&);
  // out[c, r] = x[r, c] for rows [firstRow, lastRow) and columns [firstColumn, lastColumn).
  void (*transpose)(const float* x, float* out, int64_t rows, int64_t columns, int64_t firstRow, int64_t lastRow,
                    int64_t firstColumn, int64_t lastColumn);
  // Tokens [first, last); what they give the weight is written to gradWeight [dim], unless that is null.
  void (*rmsNormBackward)(const RmsNormBackwardProblem&, int64_t first, int64_t last, float* gradWeight);
  void (*swigluBackward)(const float* gate, const float* up, const float* gradOut, float* gradGate, float* gradUp,
                         int64_t count);
  void (*crossEntropy)(const CrossEntropyProblem&, int64_t firstRow, int64_t lastRow);
  void (*adamW)(const AdamWProblem&, int64_t first, int64_t last);
  double (*sumSquares)(const float* x, int64_t count);
};

}  // namespace gqa

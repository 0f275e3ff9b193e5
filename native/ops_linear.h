// What linear layers add to the table of operations: their problem, and the forms of its input.
#pragma once
#include "layout.h"

namespace gqa {

// Tokens that share the loads of a panel.
constexpr int64_t kTileTokens = 6;
// The forms in which kernels read the input of linear layers; kernels/activations.h has their orders.
enum class Activations : int32_t { rows, pairs, bytes, digits, tiles };
constexpr int kActivationForms = 5;
// 32-bit words of a group of bytes: 8 of values, scale, sum, scaled sum.
constexpr int64_t kActivationGroupWords = kGroup / 4 + 3;
// Bytes that an activation of nearly f32 accuracy is cut into, each a row of its own.
constexpr int64_t kDigits = 3;

struct ActivationLayout {
  Activations form;
  int64_t tokens, columns;

  GQA_INLINE int64_t tokenRows() const { return form == Activations::digits ? kDigits : 1; }
  // Tiles have whole ones.
  GQA_INLINE int64_t rows() const {
    return form == Activations::tiles ? roundUp(tokens, kLanes) : tokens * tokenRows();
  }
  GQA_INLINE int64_t rowWords() const {
    if (form == Activations::rows) return columns;
    const bool halves = form == Activations::pairs || form == Activations::tiles;
    return halves ? (columns + 1) / 2 : columns / kGroup * kActivationGroupWords;
  }
  GQA_INLINE int64_t words() const { return rows() * rowWords(); }
};

// x in each form that a problem needs, null where none does. rows may be x itself.
struct ActivationForms {
  float* rows;
  void* pairs;
  void* bytes;
  void* digits;
  void* tiles;
};

// out[tokens, weights.rows] = x W^T + bias
struct LinearPart {
  WeightsView weights;
  const float* bias;  // [rows] or null
  float* out;
};

// x / sqrt(mean(x^2) + eps) * weight, or (x - mean) / sqrt(variance + eps) * weight + bias.
enum class NormKind : int32_t { rms, layer };

struct Norm {
  NormKind kind;
  const float* weight;  // [dim], null for no norm at all
  const float* bias;    // [dim] or null; of a layer norm
  float eps;
};

// silu x / (1 + e^-x); gelu x Phi(x), Phi the normal distribution; geluTanh its usual approximation; relu max(0, x).
// swigluOai gates only: g / (1 + e^(-1.702 g)) (u + 1), g = min(gate, 7), u = up within -7 .. 7.
enum class ActivationFunction : int32_t { silu, gelu, geluTanh, relu, swigluOai };

// What becomes of the products: written, added to what out holds, (of two parts of one shape) f(first) * second,
// written to the first one's out, or f of each, written.
enum class Combine : int32_t { write, add, gated, activated };

constexpr int kMaxLinearParts = 3;

// Software prefetch of the next block or panel: none, its lines in their order, or lines of many pages at once.
enum class Prefetch : int32_t { off, lines, pages };

// Products that share an input, which is normalised first where norm has a weight.
struct LinearProblem {
  const float* x;  // [tokens, columns]
  int64_t tokens, columns;
  Norm norm;
  LinearPart parts[kMaxLinearParts];
  int64_t partCount;
  Combine combine;
  ActivationFunction activation;  // where combine has an f
  bool fast;                      // activations may be rounded: bf16 or int8, as the weights' dtype has it
  ActivationForms forms;          // set by the runtime
  Prefetch prefetch;              // of the next panel; set by the runtime
};

}  // namespace gqa

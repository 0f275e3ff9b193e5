// out[m, n] (+)= sum_k x[m, k] W[n, k] + bias[n] over packed weights, or an activation function of one such product,
// which may gate another. One token reads the weights once (GEMV); more tokens share each panel from the cache, and its
// widened strips where quantised weights meet f32 activations.
#pragma once

namespace gqa {
namespace {

// Tokens whose products wait together to be written: they share a widened strip and stay in L1 with it.
// Twice as many where tiles share one that is widened.
constexpr int64_t kBlockTokens = (kTiles ? 32 : 16) * kTileTokens;
// Groups of a strip: 16 KB as f32.
constexpr int64_t kStripGroups = 2;

// Digits are exact products of bytes where those have an instruction of their own: three of them are no slower than
// f32. bf16 rounds its input only where pairs are multiplied by an instruction of their own; f16 has none that adds up
// in f32.
Activations activationForm(const LinearProblem& p, DType weights) {
  if (tilesServe(p, weights)) return Activations::tiles;
  if (isQuantised(weights) && (p.fast || kDotBytes)) return p.fast ? Activations::bytes : Activations::digits;
  return p.fast && weights == DType::bf16 && kDotBf16 ? Activations::pairs : Activations::rows;
}

GQA_INLINE int64_t tilesOf(int64_t rows) { return (rows + kTileTokens - 1) / kTileTokens; }
GQA_INLINE int64_t tileTokens(int64_t m, int64_t last) { return last - m < kTileTokens ? last - m : kTileTokens; }

void floatProducts(const Segment& s, float* c) {
  const PanelLayout layout = s.weights.layout();
  const int64_t columns = s.weights.columns, rowBytes = layout.rowBytes(s.v), passes = tilesOf(s.last - s.first);
  int64_t pass = 0;
  for (int64_t m = s.first; m < s.last; m += kTileTokens, c += kTileTokens * kPanelLanes, ++pass)
    panelProduct(layout.dtype,
                 {s.problem.forms.rows + m * columns,
                  columns,
                  s.weights.base + layout.vectorOffset(s.v),
                  rowBytes,
                  0,
                  columns,
                  c,
                  kPanelLanes,
                  Start::zero,
                  nullptr,
                  {s.ahead, layout.rows() * rowBytes, s.problem.prefetch, passes, pass}},
                 tileTokens(m, s.last), s.vectors);
}

void stripProducts(const Segment& s, float* products) {
  alignas(64) float strip[kStripGroups * kGroup * kPanelLanes];
  const int64_t columns = s.weights.columns, groups = s.weights.layout().groups();
  for (int64_t g = 0; g < groups; g += kStripGroups) {
    const int64_t end = g + kStripGroups < groups ? g + kStripGroups : groups;
    widenStrip(s.weights, s.v, s.vectors, g, end, strip);
    float* c = products;
    for (int64_t m = s.first; m < s.last; m += kTileTokens, c += kTileTokens * kPanelLanes)
      panelProduct(DType::f32,
                   {s.problem.forms.rows + m * columns + g * kGroup,
                    columns,
                    reinterpret_cast<const char*>(strip),
                    kPanelLanes * 4,
                    0,
                    (end - g) * kGroup,
                    c,
                    kPanelLanes,
                    g > 0 ? Start::given : Start::zero,
                    nullptr,
                    {}},
                   tileTokens(m, s.last), s.vectors);
  }
}

GQA_INLINE const int32_t* formOf(const ActivationForms& forms, Activations form) {
  if (form == Activations::pairs) return static_cast<const int32_t*>(forms.pairs);
  return static_cast<const int32_t*>(form == Activations::bytes ? forms.bytes : forms.digits);
}

// The lowest digits first, as their sums are the smallest.
GQA_INLINE void sumDigits(const float* digits, int64_t tokens, int64_t vectors, float* c) {
  for (int64_t m = 0; m < tokens; ++m, digits += kDigits * kPanelLanes, c += kPanelLanes)
    for (int64_t n = 0; n < vectors * kLanes; n += kLanes)
      store(c + n, add(add(load(digits + 2 * kPanelLanes + n), load(digits + kPanelLanes + n)), load(digits + n)));
}

void roundedProducts(const Segment& s, Activations form, float* c) {
  alignas(64) float digits[kTileTokens * kPanelLanes];
  const PanelLayout layout = s.weights.layout();
  const LinearProblem& p = s.problem;
  const ActivationLayout x = {form, p.tokens, p.columns};
  DotArgs t = {};
  t.w = s.weights.base + layout.vectorOffset(s.v);
  t.rowBytes = layout.rowBytes(s.v);
  t.chunkBytes = layout.chunkBytes(s.v);
  t.scales = layout.scalesOffset(s.v, 0) - layout.vectorOffset(s.v);
  t.minimums = layout.rowVectors(s.v) * kLanes * 2;
  t.steps = form == Activations::pairs ? layout.rows() : layout.groups();
  t.first = true;
  const int64_t lastRow = s.last * x.tokenRows();
  for (int64_t row = s.first * x.tokenRows(); row < lastRow; row += kTileTokens, t.first = false) {
    const int64_t rows = tileTokens(row, lastRow);
    t.x = formOf(p.forms, form) + row * x.rowWords();
    t.c = form == Activations::digits ? digits : c;
    dotProduct(layout.dtype, t, rows, s.vectors);
    if (form == Activations::digits) sumDigits(digits, rows / kDigits, s.vectors, c);
    c += rows / x.tokenRows() * kPanelLanes;
  }
}

// c[token][kPanelLanes]
GQA_INLINE void products(const Segment& s, float* c) {
  const Activations form = activationForm(s.problem, s.weights.dtype);
  if (form == Activations::tiles)
    tileProducts(s, c);
  else if (form != Activations::rows)
    roundedProducts(s, form, c);
  else if (isQuantised(s.weights.dtype))
    stripProducts(s, c);
  else
    floatProducts(s, c);
}

GQA_INLINE Vec biased(const LinearPart& part, int64_t feature, int64_t lanes, const float* c) {
  return part.bias ? add(load(c), loadFirst(part.bias + feature, lanes)) : load(c);
}

// Products c, and those of the second part where gates want them, into the part's out.
void writeProducts(const Segment& s, const LinearPart* part, const float* c, const float* second) {
  const Combine combine = s.problem.combine;
  const int64_t rows = s.weights.rows, feature = s.v * kLanes;
  const int64_t end = feature + s.vectors * kLanes < rows ? feature + s.vectors * kLanes : rows;
  for (int64_t m = s.first; m < s.last; ++m, c += kPanelLanes, second += kPanelLanes)
    for (int64_t n = feature; n < end; n += kLanes) {
      const int64_t lanes = lanesLeft(n, end);
      float* out = part->out + m * rows + n;
      Vec y = biased(part[0], n, lanes, c + n - feature);
      if (combine == Combine::gated)
        y = gated(s.problem.activation, y, biased(part[1], n, lanes, second + n - feature));
      else if (combine == Combine::activated)
        y = activated(s.problem.activation, y);
      else if (combine == Combine::add)
        y = add(loadFirst(out, lanes), y);
      storeFirst(out, lanes, y);
    }
}

void linearVectors(const LinearProblem& p, int64_t part, int64_t first, int64_t last, int64_t firstToken,
                   int64_t lastToken) {
  alignas(64) float c[2][kBlockTokens * kPanelLanes];
  const LinearPart* parts = p.parts + part;
  const WeightsView& w = parts->weights;
  const PanelLayout layout = w.layout();
  for (int64_t v = first; v < last;) {
    const int64_t panelEnd = v - v % kPanelVectors + layout.rowVectors(v), end = panelEnd < last ? panelEnd : last;
    for (int64_t m = firstToken; m < lastToken; m += kBlockTokens) {
      const bool ahead = p.prefetch != Prefetch::off && m == firstToken && end < last;
      Segment s = {p,
                   w,
                   v,
                   end - v,
                   m,
                   m + kBlockTokens < lastToken ? m + kBlockTokens : lastToken,
                   ahead ? w.base + layout.vectorOffset(end) : nullptr};
      products(s, c[0]);
      if (p.combine == Combine::gated) products({p, parts[1].weights, s.v, s.vectors, s.first, s.last, nullptr}, c[1]);
      writeProducts(s, parts, c[0], c[1]);
    }
    v = end;
  }
}

}  // namespace
}  // namespace gqa

// SPDX-License-Identifier: Apache-2.0
// The head in chunks of tokens: how many tokens a chunk has, and that chunks make no difference.
#include "tessera/model/loss_head.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

using namespace tessera;
using namespace tessera::model;

namespace {

template <class View>
View waves(View view, double step) {
  for (std::size_t i = 0; i < view.size(); ++i) {
    view.data()[i] = static_cast<float>(std::sin(step * static_cast<double>(i + 1)));
  }
  return view;
}

/// A head's weights, its gradients, and one sequence.
struct Head {
  static constexpr std::int64_t hidden = 4;
  std::int64_t vocab, tokens;
  ModelConfig config;
  HeadWeights<float> weights;
  HeadGradients gradients;
  kernel::Matrix<float> x, dx;
  std::vector<std::int64_t> labels;

  Head(std::int64_t vocab_size, std::int64_t num_tokens) : vocab(vocab_size), tokens(num_tokens) {
    config.hidden_size = hidden;
    config.vocab_size = vocab;
    config.rms_norm_epsilon = 1e-5;
    weights = {waves(kernel::Vector<float>("norm", hidden), 0.7),
               waves(kernel::Matrix<float>("vocabulary", vocab, hidden), 0.37)};
    gradients = {kernel::Vector<float>("dnorm", hidden),
                 kernel::Matrix<float>("dvocabulary", vocab, hidden)};
    x = waves(kernel::Matrix<float>("x", tokens, hidden), 1.3);
    dx = kernel::Matrix<float>("dx", tokens, hidden);
    for (std::int64_t t = 0; t < tokens; ++t) labels.push_back(t * 7919 % vocab);
  }

  /// Tokens [first, first + count) alone, in one chunk or several.
  double run(std::int64_t first, std::int64_t count) {
    Batch batch;
    batch.sequences = 1;
    batch.length = count;
    batch.targets = kernel::Vector<std::int64_t>("targets", count);
    for (std::int64_t t = 0; t < count; ++t) batch.targets(t) = labels[first + t];
    const auto rows = [&](const kernel::Matrix<float>& of) {
      return kernel::Matrix<float>(of.data() + first * hidden, count, hidden);
    };
    return loss_head<float>(kernel::Execution(), config, weights, batch, rows(x), 0.5, &gradients,
                            rows(dx), nullptr);
  }
};

double largest_difference(const kernel::Matrix<float>& a, const kernel::Matrix<float>& b) {
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::fmax(largest, std::abs(a.data()[i] - b.data()[i]));
  }
  return largest;
}

}  // namespace

TEST_CASE("Logits take at most 1 % of the full logits' memory, 256 tokens' or 64 MiB") {
  for (const std::int64_t vocab : {1, 256, 32768, 65537, 201088}) {
    for (const std::int64_t tokens : {1, 255, 256, 257, 2048, 30000, 131072}) {
      const std::int64_t chunk = logits_chunk_tokens(tokens, vocab);
      INFO("vocabulary " << vocab << ", tokens " << tokens << ", chunk " << chunk);
      CHECK(chunk >= 1);
      CHECK(chunk <= tokens);
      CHECK((chunk <= tokens / 100 || chunk <= 256 || chunk * vocab * 4 <= 64 << 20));
    }
    CHECK(logits_chunk_tokens(0, vocab) == 0);
  }
  CHECK(logits_chunk_tokens(131072, 201088) == 1310);
}

TEST_CASE("Chunks of tokens make no difference to loss and gradients") {
  Head whole(65536, 600), pieces(65536, 600);
  REQUIRE(logits_chunk_tokens(600, 65536) == 256);
  const double loss = whole.run(0, 600);
  double sum = 0.0;
  for (const std::int64_t first : {0, 200, 400}) sum += pieces.run(first, 200);
  CHECK(loss == Approx(sum).epsilon(1e-9));
  CHECK(largest_difference(whole.dx, pieces.dx) < 1e-6);
  CHECK(largest_difference(whole.gradients.vocabulary, pieces.gradients.vocabulary) < 1e-6);
}

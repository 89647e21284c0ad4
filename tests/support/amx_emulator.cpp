// SPDX-License-Identifier: Apache-2.0
// Decoding: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "VEX" and the
// pages of the AMX instructions.
#include "support/amx_emulator.hpp"

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <ucontext.h>

namespace tessera::test {
namespace {

constexpr int num_tiles = 8, max_rows = 16, max_row_bytes = 64;

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  std::uint8_t data[max_rows][max_row_bytes] = {};
};

struct Tiles {
  bool is_configured = false;
  Tile tile[num_tiles];
};

thread_local Tiles tiles;
thread_local long num_emulated = 0;

[[noreturn]] void refuse(const char* what) {
  std::fprintf(stderr, "AMX emulator: %s\n", what);
  std::abort();
}

/// A VEX-encoded instruction of map 0F38 and the registers it finds.
struct Instruction {
  const std::uint8_t* next;  ///< first byte not decoded yet
  std::uint8_t opcode = 0;
  int prefix = 0;  ///< 0 none, 1 66, 2 F3, 3 F2
  int reg = 0, rm = 0, vvvv = 0, mod = 0;
  int index_extension = 0, base_extension = 0;
};

bool decode(const std::uint8_t* code, Instruction& instruction) {
  constexpr std::uint8_t three_byte_vex = 0xc4, map_0f38 = 2;
  if (code[0] != three_byte_vex || (code[1] & 0x1f) != map_0f38) return false;
  if ((code[2] & 0x84) != 0) return false;  // W and L
  instruction.opcode = code[3];
  instruction.prefix = code[2] & 3;
  instruction.vvvv = ~(code[2] >> 3) & 15;
  instruction.mod = code[4] >> 6;
  instruction.reg = (code[4] >> 3 & 7) | ((code[1] & 0x80) != 0 ? 0 : 8);
  instruction.rm = code[4] & 7;
  instruction.index_extension = (code[1] & 0x40) != 0 ? 0 : 8;
  instruction.base_extension = (code[1] & 0x20) != 0 ? 0 : 8;
  instruction.next = code + 5;
  return true;
}

std::int64_t general_register(const ucontext_t& context, int number) {
  static constexpr int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};
  return context.uc_mcontext.gregs[order[number]];
}

struct Address {
  std::int64_t base = 0;
  std::int64_t index = 0;  ///< scaled: the stride of tile loads and stores
};

std::int64_t displacement(Instruction& instruction, bool is_long) {
  std::int64_t value = 0;
  if (is_long) {
    std::int32_t wide;
    std::memcpy(&wide, instruction.next, sizeof wide);
    value = wide;
    instruction.next += sizeof wide;
  } else {
    value = static_cast<std::int8_t>(*instruction.next++);
  }
  return value;
}

/// Consumes SIB and displacement.
Address decode_address(const ucontext_t& context, Instruction& instruction) {
  constexpr int sib_follows = 4, no_index = 4, no_base = 5;
  Address address;
  int base = instruction.rm;
  if (base == sib_follows) {
    const std::uint8_t sib = *instruction.next++;
    const int index = (sib >> 3 & 7) | instruction.index_extension;
    if (index != no_index) address.index = general_register(context, index) << (sib >> 6);
    base = sib & 7;
  } else if (instruction.mod == 0 && base == no_base) {  // relative to the next instruction
    const std::int64_t offset = displacement(instruction, true);
    address.base = reinterpret_cast<std::int64_t>(instruction.next) + offset;
    return address;
  }
  if (instruction.mod != 0 || base != no_base) {
    address.base = general_register(context, base | instruction.base_extension);
  }
  if (instruction.mod == 1) address.base += displacement(instruction, false);
  if (instruction.mod == 2 || (instruction.mod == 0 && base == no_base)) {
    address.base += displacement(instruction, true);
  }
  return address;
}

void load_configuration(const std::uint8_t* memory) {
  if (memory[0] != 1) refuse("palette is not 1");
  if (memory[1] != 0) refuse("start row is not 0");
  tiles = {};
  tiles.is_configured = true;
  for (int t = 0; t < num_tiles; ++t) {
    std::uint16_t row_bytes;
    std::memcpy(&row_bytes, memory + 16 + 2 * t, sizeof row_bytes);
    const int rows = memory[48 + t];
    if (rows > max_rows || row_bytes > max_row_bytes) refuse("tile is too large");
    if ((rows == 0) != (row_bytes == 0)) refuse("tile has rows or columns only");
    tiles.tile[t].rows = rows;
    tiles.tile[t].row_bytes = row_bytes;
  }
}

Tile& configured(int number) {
  if (number >= num_tiles) refuse("no such tile register");
  if (!tiles.is_configured || tiles.tile[number].rows == 0) refuse("tile is not configured");
  return tiles.tile[number];
}

void load(Tile& tile, const Address& from) {
  std::memset(tile.data, 0, sizeof tile.data);
  for (int row = 0; row < tile.rows; ++row) {
    const auto* at = reinterpret_cast<const void*>(from.base + row * from.index);
    std::memcpy(tile.data[row], at, static_cast<std::size_t>(tile.row_bytes));
  }
}

void store(const Tile& tile, const Address& to) {
  for (int row = 0; row < tile.rows; ++row) {
    auto* at = reinterpret_cast<void*>(to.base + row * to.index);
    std::memcpy(at, tile.data[row], static_cast<std::size_t>(tile.row_bytes));
  }
}

float bf16_at(const std::uint8_t* row, int element) {
  std::uint16_t bits;
  std::memcpy(&bits, row + 2 * element, sizeof bits);
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

/// Even and odd elements are summed apart, then together, then into c.
void multiply(Tile& c, const Tile& a, const Tile& b) {
  if (c.rows != a.rows || c.row_bytes != b.row_bytes || a.row_bytes != 4 * b.rows) {
    refuse("tiles of a product do not fit");
  }
  for (int row = 0; row < c.rows; ++row) {
    for (int col = 0; col < c.row_bytes / 4; ++col) {
      float even = 0.0f, odd = 0.0f, sum;
      for (int k = 0; k < b.rows; ++k) {
        even = std::fma(bf16_at(a.data[row], 2 * k), bf16_at(b.data[k], 2 * col), even);
        odd = std::fma(bf16_at(a.data[row], 2 * k + 1), bf16_at(b.data[k], 2 * col + 1), odd);
      }
      std::memcpy(&sum, c.data[row] + 4 * col, sizeof sum);
      sum += even + odd;
      std::memcpy(c.data[row] + 4 * col, &sum, sizeof sum);
    }
  }
}

bool emulate_49(const ucontext_t& context, Instruction& i) {
  if (i.prefix == 0 && i.mod != 3 && i.reg == 0) {
    load_configuration(reinterpret_cast<const std::uint8_t*>(decode_address(context, i).base));
  } else if (i.prefix == 0 && i.mod == 3 && i.reg == 0 && i.rm == 0) {
    tiles = {};
  } else if (i.prefix == 3 && i.mod == 3 && i.rm == 0) {
    std::memset(configured(i.reg).data, 0, sizeof Tile::data);
  } else {
    return false;
  }
  return true;
}

bool emulate_4b(const ucontext_t& context, Instruction& i) {
  if (i.mod == 3 || i.rm != 4) return false;
  if (i.prefix == 0) return false;
  const Address address = decode_address(context, i);
  if (i.prefix == 2) {
    store(configured(i.reg), address);
  } else {
    load(configured(i.reg), address);
  }
  return true;
}

bool emulate(const ucontext_t& context, Instruction& i) {
  switch (i.opcode) {
    case 0x49: return emulate_49(context, i);
    case 0x4b: return emulate_4b(context, i);
    case 0x5c:
      if (i.prefix != 2 || i.mod != 3) return false;
      multiply(configured(i.reg), configured(i.rm | i.base_extension), configured(i.vvvv));
      return true;
    default: return false;
  }
}

void handle(int, siginfo_t*, void* raw_context) {
  auto& context = *static_cast<ucontext_t*>(raw_context);
  auto& instruction_pointer = context.uc_mcontext.gregs[REG_RIP];
  Instruction instruction;
  if (!decode(reinterpret_cast<const std::uint8_t*>(instruction_pointer), instruction) ||
      !emulate(context, instruction)) {
    refuse("an illegal instruction that is none of those emulated");
  }
  instruction_pointer = reinterpret_cast<std::int64_t>(instruction.next);
  ++num_emulated;
}

struct sigaction before;

}  // namespace

bool AmxEmulator::is_possible() { return true; }

AmxEmulator::AmxEmulator() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}

AmxEmulator::~AmxEmulator() { sigaction(SIGILL, &before, nullptr); }

long num_emulated_instructions() { return num_emulated; }

}  // namespace tessera::test

#else

namespace tessera::test {

bool AmxEmulator::is_possible() { return false; }
AmxEmulator::AmxEmulator() = default;
AmxEmulator::~AmxEmulator() = default;
long num_emulated_instructions() { return 0; }

}  // namespace tessera::test
#endif

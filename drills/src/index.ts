export type {
  Command,
  FleetHolder,
  FleetProgress,
  FleetRehearsal,
  FleetServer,
  FleetStatus,
  FleetVolume,
  LocalFleet,
  LocalFleetOptions,
  PinStatus,
  WayStatus,
} from './fleet.ts'
